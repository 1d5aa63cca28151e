use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;

use super::fields::assert_stripped;
use super::pipe::{Pipe, finish};
use super::step;
use crate::proxy::wire::app_body::{Decoder, Piece};
use crate::proxy::wire::headers::strip_hop_by_hop;
use crate::proxy::wire::{app_head, head};

/// An app's bytes: however they are split into reads, the client gets the same, without anything that
/// was meant for the proxy; and if hyper accepts them as a response too, it is the same response.
pub fn answers(bytes: &[u8]) {
    for method in [Method::GET, Method::HEAD] {
        let answer = read(bytes, &method, bytes.len());
        assert_eq!(answer, read(bytes, &method, step(bytes)), "cut otherwise");
        let Some(mut answer) = answer else { continue };
        strip_hop_by_hop(&mut answer.headers);
        assert_stripped(&answer.headers);
        let Some(other) = by_hyper(bytes, &method) else {
            continue;
        };
        if answer.ended && answer.status != StatusCode::SWITCHING_PROTOCOLS {
            assert_eq!((answer.status, &answer.data), (other.0, &other.1));
        }
    }
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    data: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// The bytes after it.
    rest: Vec<u8>,
}

/// The first response that is not an interim one. `None`: there is none, or its body is broken.
fn read(bytes: &[u8], method: &Method, step: usize) -> Option<Answer> {
    let mut parts = bytes.chunks(step.max(1));
    let mut read = BytesMut::new();
    let head = loop {
        let Some(length) = head::length(&read) else {
            read.extend_from_slice(parts.next()?);
            continue;
        };
        let head = app_head::read(read.split_to(length).freeze(), method).ok()?;
        let status = head.response.status();
        if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
            break head;
        }
    };
    let mut decoder = head.body;
    let (mut data, mut trailers) = (Vec::new(), None);
    loop {
        match decoder.piece(&mut read).ok()? {
            Piece::Frame(frame) => match frame.into_data() {
                Ok(part) => data.extend_from_slice(&part),
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            Piece::None | Piece::End => match parts.next() {
                Some(part) => read.extend_from_slice(part),
                None => break,
            },
        }
    }
    Some(Answer {
        status: head.response.status(),
        headers: head.response.into_parts().0.headers,
        data,
        trailers,
        ended: decoder.is_ended() || decoder == Decoder::UntilClose,
        rest: read.to_vec(),
    })
}

fn by_hyper(bytes: &[u8], method: &Method) -> Option<(StatusCode, Vec<u8>)> {
    let mut pipe = Pipe::new(bytes, bytes.len());
    pipe.quiet = true;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method.clone();
    finish(async {
        let (mut sender, connection) = handshake(TokioIo::new(pipe)).await.ok()?;
        let answer = async move {
            let answer = sender.send_request(request).await.ok()?;
            let status = answer.status();
            let body = answer.into_body().collect().await.ok()?;
            Some((status, body.to_bytes().to_vec()))
        };
        futures_util::join!(connection, answer).1
    })
}
