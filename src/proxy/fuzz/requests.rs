use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

use super::pipe::{Pipe, finish};
use super::step;
use crate::proxy::downstream::client_io::ClientIo;
use crate::proxy::downstream::handler::Connection;
use crate::proxy::downstream::http1;
use crate::proxy::downstream::limits::{Limits, Places};
use crate::proxy::exchange::app_request::app_request;
use crate::proxy::exchange::download::ResponseBody;
use crate::proxy::route::table::Policy;
use crate::proxy::upstream::request_body::RequestBody;
use crate::proxy::watch::Watches;
use crate::proxy::wire::app_head;
use crate::proxy::wire::framing::Reader;
use crate::proxy::wire::head;
use crate::proxy::wire::headers::Client;
use crate::proxy::wire::request_target;

/// More fields than the longest head has.
const FIELDS: usize = head::USUAL / 4;

/// A client's bytes: however they are split into reads, the apps get the same; the strict check and
/// hyper agree on where a request ends; and each arrives as one request, whatever it holds.
pub fn requests(bytes: &[u8]) {
    let sent = serve(bytes, bytes.len());
    let cut = serve(bytes, step(bytes));
    let mut reader = Reader::new(head::USUAL);
    let alike = match reader.follow(bytes).is_ok() && reader.is_lost() {
        // A client that requests another protocol while responses are due gets only those; how many
        // there are is a matter of timing.
        true => sent.len().min(cut.len()),
        false => sent.len().max(cut.len()),
    };
    assert_eq!(sent.get(..alike), cut.get(..alike), "cut otherwise");
    let (whole, rest) = each(bytes);
    let more = usize::from(!rest.is_empty());
    assert!(sent.len() <= whole.len() + more, "more than were read");
    for (request, sent) in whole.into_iter().zip(&sent) {
        let alone = serve(request, request.len());
        let same = std::slice::from_ref(sent);
        assert_eq!(alone, same, "another one when it is alone");
        if let Some(sent) = sent {
            assert_eq!(
                each(sent),
                (vec![&sent[..]], &b""[..]),
                "not one for the app"
            );
        }
    }
}

/// The requests in `bytes` according to the strict check, and the rest, which is not a whole one.
fn each(bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let (mut whole, mut begin) = (Vec::new(), 0);
    let mut reader = Reader::new(head::USUAL);
    for at in 0..bytes.len() {
        if reader.follow(&bytes[at..=at]).is_err() {
            break;
        }
        if reader.at_start() {
            let one = &bytes[begin..=at];
            begin = at + 1;
            // An empty line before a request is skipped.
            if one != b"\r\n" {
                whole.push(one);
            }
        }
    }
    (whole, &bytes[begin..])
}

/// What an app would get of each request on a connection. `None`: it is refused or cut off.
fn serve(bytes: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
    let place = Places::new(1, 1).take().expect("there is one");
    let limits = Limits {
        head_ms: 1_000,
        idle_ms: 1_000,
        write_ms: 1_000,
        head: head::USUAL,
    };
    let watch = Watches::default().add();
    let pipe = Pipe::new(bytes, step);
    let mut io = ClientIo::new(pipe, Vec::new(), false, place, watch.clone(), limits);
    io.set_fields(FIELDS);
    let connection = Connection {
        client: Mutex::new(Client::new([1, 2, 3, 4].into(), false, false)),
        watch,
    };
    let sent = RefCell::new(Vec::new());
    let service = service_fn(async |request| {
        let for_app = for_app(&connection, request).await;
        let mut response = Response::new(ResponseBody::empty());
        if for_app.is_none() || connection.watch.unfollowed.load(SeqCst) {
            http1::make_last(response.headers_mut());
        }
        sent.borrow_mut().push(for_app);
        Ok::<_, Infallible>(response)
    });
    let http = http1::builder(head::USUAL, FIELDS).serve_connection(TokioIo::new(io), service);
    // Whether the last request was accepted shows in `sent`.
    let _ = finish(http);
    sent.into_inner()
}

async fn for_app(connection: &Connection, request: Request<Incoming>) -> Option<Vec<u8>> {
    if request.method() == Method::CONNECT {
        return None;
    }
    let host = request_target::host(&request)?;
    let (mut request, _) = app_request(connection, request, &host, &Policy::default(), "/");
    let mut bytes = Vec::new();
    app_head::write(&request, &mut bytes);
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let announced: Vec<HeaderValue> = request
        .headers()
        .get_all(header::TRAILER)
        .iter()
        .cloned()
        .collect();
    if matches!(request.body(), RequestBody::Empty) {
        return Some(bytes);
    }
    let body = request.body_mut();
    let (mut data, mut trailers) = (Vec::new(), HeaderMap::new());
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        match frame.ok()?.into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if chunked {
        // As one chunk: the number of chunks that arrived depends on how the bytes were split.
        app_head::write_chunk(&data, &mut bytes);
        app_head::write_trailers(&trailers, &announced, &mut bytes);
    } else {
        bytes.extend_from_slice(&data);
    }
    Some(bytes)
}
