//! An authority that says when it wants certificates renewed (RFC 9773), which pebble does not: in front
//! of it stands a server that adds the one resource, and passes everything else on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use cutover::outbound::Outbound;
use http::{HeaderMap, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::authority::Authority;
use crate::certificates::{known, served};
use crate::support::tls::Tls;
use crate::support::wait::soon;

/// The answers about the first certificate that is asked about, the second, and so on.
type Answers = Vec<(StatusCode, Value)>;

struct Front {
    own: SocketAddr,
    authority: SocketAddr,
    outbound: Outbound,
    answers: Answers,
    /// The certificates that were asked about, and those that orders replaced.
    asked: Mutex<Vec<String>>,
    replaced: Mutex<Vec<String>>,
}

impl Front {
    /// Puts one before the authority.
    async fn put(authority: &mut Authority, answers: Answers) -> Arc<Self> {
        let (ca, key) = authority.files();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap();
        let front = Arc::new(Self {
            own,
            authority: std::mem::replace(&mut authority.directory, own),
            outbound: Outbound::trusting(vec![CertificateDer::from_pem_file(&ca).unwrap()])
                .unwrap(),
            answers,
            asked: Mutex::default(),
            replaced: Mutex::default(),
        });
        let app = Router::new().fallback(pass).with_state(front.clone());
        let tls = Tls(listener, acceptor(&ca, &key));
        tokio::spawn(async move { axum::serve(tls, app).await.unwrap() });
        front
    }

    fn answer(&self, id: &str) -> Response {
        let mut asked = self.asked.lock().unwrap();
        let known = asked.iter().position(|it| it == id);
        let index = known.unwrap_or_else(|| {
            asked.push(id.to_owned());
            asked.len() - 1
        });
        let (status, body) = self.answers[index].clone();
        let headers = [
            (header::RETRY_AFTER, "21600"),
            (header::CONTENT_TYPE, "application/json"),
        ];
        (status, headers, body.to_string()).into_response()
    }
}

fn acceptor(ca: &Path, key: &Path) -> tokio_rustls::TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(ca).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    Arc::new(config.unwrap()).into()
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if let Some(id) = path.strip_prefix("/renewal-info/") {
        return front.answer(id);
    }
    let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
    let replaces = match path == "/order-plz" {
        true => replaces(&body),
        false => Value::Null,
    };
    if let Some(id) = replaces.as_str() {
        front.replaced.lock().unwrap().push(id.to_owned());
    }
    // The authority takes its own address from `Host`.
    let at =
        |address: SocketAddr| -> Uri { format!("https://{address}{}", head.uri).parse().unwrap() };
    let mut channel = front.outbound.connect(&at(front.authority)).await.unwrap();
    let mut on = http::Request::new(Full::new(body));
    *on.method_mut() = head.method.clone();
    *on.uri_mut() = at(front.own);
    *on.headers_mut() = head.headers;
    let answer = channel.send(on).await.unwrap();
    let (head, body) = answer.into_parts();
    let mut body = body.collect().await.unwrap().to_bytes().to_vec();
    if path == "/dir" {
        let url = format!("https://{}/renewal-info", front.own);
        body = with(&body, "renewalInfo", url.into());
    } else if !replaces.is_null() && head.status.is_success() {
        body = with(&body, "replaces", replaces);
    }
    let mut headers: HeaderMap = head.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    (head.status, headers, body).into_response()
}

fn with(body: &[u8], key: &str, value: Value) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(body).unwrap();
    body[key] = value;
    body.to_string().into_bytes()
}

/// The certificate that an order replaces.
fn replaces(body: &[u8]) -> Value {
    let signed: Value = serde_json::from_slice(body).unwrap();
    let payload = signed["payload"].as_str().unwrap();
    let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    payload["replaces"].clone()
}

/// A window that begins and ends so many hours from now.
fn window(start: i64, end: i64) -> Value {
    let at = |hours: i64| (Timestamp::now() + jiff::SignedDuration::from_hours(hours)).to_string();
    json!({
        "suggestedWindow": { "start": at(start), "end": at(end) },
        "explanationURL": "https://ca.test/incident",
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_when_its_authority_wants_it_and_else_after_two_thirds() {
    let Some(mut authority) = Authority::new().await else {
        return;
    };
    authority.set("certificateValidityPeriod", json!(90 * 24 * 3600));
    authority.start().await;
    let front = Front::put(
        &mut authority,
        vec![
            (StatusCode::OK, window(-2, -1)),
            (StatusCode::OK, json!("soon")),
            (StatusCode::OK, window(240, 264)),
            (StatusCode::OK, window(-2, -1)),
        ],
    )
    .await;
    let asked = || front.asked.lock().unwrap().clone();
    let replaced = || front.replaced.lock().unwrap().clone();
    let mut server = authority.server(&["hello.test"], "").await;
    server.serve().await;
    served(&authority, &server, "hello.test").await;

    // About to be revoked: replaced at once. About the new one, the authority says nothing useful.
    let again = soon(async || asked().len() == 2).await;
    assert!(again, "{:?}\n{}", asked(), server.log());
    assert_eq!(replaced(), asked()[..1]);
    let days = async || {
        let known = known(&server, "hello.test").await;
        let at: Timestamp = known["renews_at"].as_str().unwrap().parse().unwrap();
        at.duration_since(Timestamp::now()).as_hours() / 24
    };
    assert!((58..=60).contains(&days().await), "two thirds");

    let renew = ["certificates", "renew", "hello.test"];
    assert!(server.cutover(&renew).status().unwrap().success());
    let again = soon(async || asked().len() == 3 && days().await <= 11).await;
    assert!(again, "{:?}\n{}", asked(), server.log());
    assert_eq!(days().await.clamp(9, 10), days().await, "in the window");
    let known = known(&server, "hello.test").await;
    assert_eq!(known["renewal_explanation"], "https://ca.test/incident");
    let listed = server.cutover(&["certificates"]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("https://ca.test/incident"), "{listed}");

    // One that always wants the next one at once gets one a day.
    assert!(server.cutover(&renew).status().unwrap().success());
    let again = soon(async || asked().len() == 4 && days().await == 0).await;
    assert!(again, "{:?}\n{}", asked(), server.log());
    assert_eq!(asked().len(), 4);
    let db = rusqlite::Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let count = "SELECT count(*) FROM certificate_orders";
    let orders: i64 = db.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(orders, 4, "{}", server.log());
    server.stop().await;
}
