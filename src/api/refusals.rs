//! Refusals: counted for each client and each app, so that a client that is refused too often is told
//! to wait, and logged at most once a minute.
//!
//! Only refusals count, and a request with the right signature or token is always accepted, however
//! many refusals came before: a forge sends thousands of deliveries from one address, some of them for
//! other people, and behind a proxy all clients have one address. What protects a secret is that it
//! cannot be guessed.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;

use super::error::Kind;
use super::{Api, ApiError, peer, web};
use crate::ids::AppName;
use crate::principal::Requester;
use crate::proxy::network_of;
use crate::store::actions;

/// How often one client, or the clients of one app, may be refused at once, and then per second.
const OF_CLIENT: (f64, f64) = (100.0, 1.0);
const OF_APP: (f64, f64) = (1000.0, 10.0);
/// The same for all clients behind the other end of one connection: a client that can reach the agent
/// from a trusted address can write any address into `X-Forwarded-For`.
const OF_PEER: (f64, f64) = (1000.0, 10.0);
/// How many clients are remembered; all further ones count as one.
const CLIENTS: usize = 4096;
const MINUTE: Duration = Duration::from_secs(60);

/// The counts. They are kept in memory only.
#[derive(Default)]
pub struct Refusals {
    clients: Mutex<HashMap<Option<IpAddr>, Bucket>>,
    peers: Mutex<HashMap<IpAddr, Bucket>>,
    apps: Mutex<HashMap<AppName, Bucket>>,
    recorded: Mutex<Recorded>,
    lines: Mutex<HashMap<Kind, Line>>,
}

/// Which refusals come into the audit log: strangers must not fill it.
#[derive(Default)]
struct Recorded {
    bucket: HashMap<(), Bucket>,
    left_out: u64,
}

/// How many refusals are recorded at once, and then per second: 144 a day.
const OF_RECORD: (f64, f64) = (20.0, 1.0 / 600.0);

struct Bucket {
    left: f64,
    at: Instant,
}

struct Line {
    said: Instant,
    since: u64,
}

impl Refusals {
    /// Counts a refusal. Returns how long the client must wait if there have been too many.
    fn count(
        &self,
        client: Option<IpAddr>,
        peer: Option<IpAddr>,
        app: Option<&AppName>,
        now: Instant,
    ) -> Option<Duration> {
        let client = network_of(client?);
        // Only peers that report other clients' addresses. There are few of them, so their number needs
        // no limit.
        let peer = peer.map(network_of).filter(|peer| *peer != client);
        let of_peer = peer.and_then(|peer| take(&mut self.peers.lock(), peer, OF_PEER, now));
        let mut clients = self.clients.lock();
        if clients.len() >= CLIENTS && !clients.contains_key(&Some(client)) {
            clients.retain(|_, bucket| bucket.fill(OF_CLIENT, now) < OF_CLIENT.0);
        }
        let key =
            (clients.len() < CLIENTS || clients.contains_key(&Some(client))).then_some(client);
        let of_client = take(&mut clients, key, OF_CLIENT, now);
        drop(clients);
        let of_app = app.and_then(|app| take(&mut self.apps.lock(), app.clone(), OF_APP, now));
        of_client.max(of_app).max(of_peer)
    }

    /// Whether a refusal is to be recorded; then with how many that were not, since the last one.
    fn is_recorded(&self, now: Instant) -> Option<u64> {
        let mut recorded = self.recorded.lock();
        match take(&mut recorded.bucket, (), OF_RECORD, now) {
            None => Some(std::mem::take(&mut recorded.left_out)),
            Some(_) => {
                recorded.left_out += 1;
                None
            }
        }
    }

    /// Logs `what`, with the number of refusals since the last line of this kind; at most once a
    /// minute.
    pub fn say(&self, kind: Kind, what: impl FnOnce() -> String) {
        let now = Instant::now();
        let mut lines = self.lines.lock();
        match lines.get_mut(&kind) {
            Some(line) if now < line.said + MINUTE => line.since += 1,
            Some(line) => {
                let more = std::mem::take(&mut line.since);
                line.said = now;
                drop(lines);
                tracing::warn!(more, "{}", what());
            }
            None => {
                lines.insert(
                    kind,
                    Line {
                        said: now,
                        since: 0,
                    },
                );
                drop(lines);
                tracing::warn!("{}", what());
            }
        }
    }

    /// Logs the refusals since the last line of each kind, if that line is at least a minute old.
    fn tell(&self, now: Instant) {
        for (kind, line) in &mut *self.lines.lock() {
            if line.since > 0 && now >= line.said + MINUTE {
                let more = std::mem::take(&mut line.since);
                line.said = now;
                tracing::warn!(more, "{}, again", kind.words());
            }
        }
    }
}

impl Bucket {
    fn fill(&mut self, (most, a_second): (f64, f64), now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * a_second).min(most);
        self.at = now;
        self.left
    }
}

/// Takes one token from a bucket. Returns how long to wait if it is empty.
fn take<K: Hash + Eq>(
    buckets: &mut HashMap<K, Bucket>,
    key: K,
    size: (f64, f64),
    now: Instant,
) -> Option<Duration> {
    let bucket = buckets.entry(key).or_insert(Bucket {
        left: size.0,
        at: now,
    });
    if bucket.fill(size, now) < 1.0 {
        return Some(Duration::from_secs_f64((1.0 - bucket.left) / size.1));
    }
    bucket.left -= 1.0;
    None
}

impl Kind {
    fn words(self) -> &'static str {
        match self {
            Kind::Signature => "a delivery with a missing or wrong signature was refused",
            Kind::Malformed => "a malformed delivery was refused",
            Kind::TooLarge => "a delivery that is too large was refused",
            Kind::UnknownApp => "a delivery for an unknown app was refused",
            Kind::Network => "a delivery from a network that is not allowed was refused",
            Kind::Token => "an API call with a missing or wrong token was refused",
            Kind::GitToken => "a git push or fetch with a wrong token was refused",
            Kind::Secret => "a webhook secret cannot be read",
        }
    }
}

/// Counts every refusal, and answers 429 to clients that are refused too often.
pub async fn watch(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (mut request, body) = request.into_parts();
    let config = &api.agent.in_force().config;
    let (client, uri) = (peer::address(config, &request), request.uri.clone());
    let peer = peer::other_end(&request);
    request.extensions.insert(peer::Client(client));
    let response = next.run(Request::from_parts(request, body)).await;
    let Some(&kind) = response.extensions().get::<Kind>() else {
        return response;
    };
    let app = uri.path().strip_prefix("/hooks/").and_then(|name| {
        let name: AppName = name.trim_end_matches('/').parse().ok()?;
        config.apps.contains_key(&name).then_some(name)
    });
    api.refusals.say(kind, || {
        let client = client.map_or("the Unix socket".into(), |client| client.to_string());
        let app = app.as_ref().map(|app| format!(" for `{app}`"));
        format!("{}: from {client}{}", kind.words(), app.unwrap_or_default())
    });
    if matches!(kind, Kind::Token | Kind::GitToken) {
        record(&api, client, uri.path()).await;
    }
    // A sender whose signature is valid is told what is wrong with the delivery.
    if kind == Kind::Malformed {
        return response;
    }
    match api
        .refusals
        .count(client, peer, app.as_ref(), Instant::now())
    {
        Some(wait) => too_many(wait, Form::of(kind, &response)),
        None => response,
    }
}

/// Records in the audit log that somebody was refused.
async fn record(api: &Api, client: Option<IpAddr>, path: &str) {
    let Some(left_out) = api.refusals.is_recorded(Instant::now()) else {
        return;
    };
    let path: String = path.escape_debug().take(LONGEST_PATH).collect();
    let mut detail = serde_json::json!({ "path": path });
    if left_out > 0 {
        detail["left_out"] = left_out.into();
    }
    let by = Requester::Stranger { from: client };
    let write = api
        .agent
        .store
        .write(move |db| actions::insert(db, actions::Kind::Refused, None, &detail, &by));
    if let Err(error) = write.await {
        tracing::warn!(%error, "a refusal is not in the audit log");
    }
}

/// How much of a path is recorded, in characters.
const LONGEST_PATH: usize = 200;

/// The form in which a client expects an answer.
enum Form {
    Json,
    /// For git's user.
    Text,
    Page,
}

impl Form {
    fn of(kind: Kind, response: &Response) -> Self {
        let content = response.headers().get(header::CONTENT_TYPE);
        match content {
            _ if kind == Kind::GitToken => Self::Text,
            Some(content) if content.as_bytes().starts_with(b"text/html") => Self::Page,
            _ => Self::Json,
        }
    }
}

fn too_many(wait: Duration, form: Form) -> Response {
    let seconds = wait.as_secs_f64().ceil().max(1.0) as u64;
    let message = "too many requests of this client, or for this app, were refused";
    let hint = format!("wait {seconds} s; the right signature or token is always let in");
    let status = StatusCode::TOO_MANY_REQUESTS;
    let error = ApiError::new(status, "too_many_refusals", message, &hint);
    let mut response = match form {
        Form::Text => (status, format!("{message}: {hint}\n")).into_response(),
        Form::Page => web::refusal(None, error),
        Form::Json => error.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Every minute, logs the refusals that have not been logged yet. Runs until dropped.
pub async fn tell(api: Arc<Api>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(5));
    loop {
        ticks.tick().await;
        api.refusals.tell(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_run_out_and_come_back_for_each_client() {
        let refusals = Refusals::default();
        let (one, two) = ("192.0.2.1".parse().ok(), "2001:db8::1".parse().ok());
        let begun = Instant::now();
        for _ in 0..100 {
            assert_eq!(refusals.count(one, None, None, begun), None);
        }
        assert_eq!(refusals.count(one, None, None, begun), Some(MINUTE / 60));
        assert_eq!(refusals.count(two, None, None, begun), None);
        assert_eq!(refusals.count(one, None, None, begun + MINUTE / 60), None);
        assert!(
            refusals
                .count(one, None, None, begun + MINUTE / 60)
                .is_some()
        );
        // The addresses of one IPv6 network count as one client.
        for host in 0..99 {
            let address = format!("2001:db8::{:x}", host + 2).parse().ok();
            assert_eq!(refusals.count(address, None, None, begun), None);
        }
        assert!(refusals.count(two, None, None, begun).is_some());
        let app: AppName = "hello".parse().unwrap();
        for host in 0..1000u32 {
            let address = Some(IpAddr::V4((0x0a00_0000 + host).into()));
            assert_eq!(refusals.count(address, None, Some(&app), begun), None);
        }
        let new = "192.0.2.77".parse().ok();
        assert!(refusals.count(new, None, Some(&app), begun).is_some());
    }

    #[test]
    fn strangers_do_not_fill_the_audit_log() {
        let (refusals, begun) = (Refusals::default(), Instant::now());
        for _ in 0..20 {
            assert_eq!(refusals.is_recorded(begun), Some(0));
        }
        assert_eq!(refusals.is_recorded(begun), None);
        assert_eq!(refusals.is_recorded(begun + MINUTE), None);
        assert_eq!(refusals.is_recorded(begun + MINUTE * 10), Some(2));
    }

    #[test]
    fn who_invents_clients_is_counted_too() {
        let refusals = Refusals::default();
        let (peer, begun) = ("127.0.0.1".parse().ok(), Instant::now());
        let invented = |host: u32| Some(IpAddr::V4((0x0a00_0000 + host).into()));
        for host in 0..1000 {
            assert_eq!(refusals.count(invented(host), peer, None, begun), None);
        }
        assert!(refusals.count(invented(1000), peer, None, begun).is_some());
        assert_eq!(
            refusals.count(peer, peer, None, begun),
            None,
            "its own word"
        );
    }

    #[test]
    fn a_million_clients_are_not_remembered() {
        let refusals = Refusals::default();
        let begun = Instant::now();
        for host in 0..20_000u32 {
            refusals.count(Some(IpAddr::V4(host.into())), None, None, begun);
        }
        assert!(refusals.clients.lock().len() <= CLIENTS + 1);
        // Clients are forgotten once they may be refused again as often as any other.
        let later = begun + MINUTE * 3;
        refusals.count(Some(IpAddr::V4(0xffff_0000.into())), None, None, later);
        assert!(refusals.clients.lock().len() <= 2);
    }
}
