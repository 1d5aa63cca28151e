//! A forge's API for one test: on loopback, strict about what the forges document, and out of order
//! whenever a test wants it to be.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use parking_lot::Mutex;
use schema::Query;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinHandle;

mod github;
mod gitlab;
pub mod jwt;
mod others;
mod schema;

pub use github::Deployment;

/// What requests prove themselves with.
pub const TOKEN: &str = "s3cret-t0ken";

/// A forge that listens, or not.
pub struct Forge {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: Option<JoinHandle<()>>,
}

/// A request that was taken.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub body: Value,
}

/// How it treats the next requests.
#[derive(Debug, Clone)]
pub enum Mood {
    Well,
    /// Every request gets this status and these headers.
    Failing(u16, Vec<(&'static str, String)>),
    /// Every request about a deployment of the forge's own gets 500 if it names this commit.
    Without(String),
    /// Every request is taken, and the answer lost on its way.
    Losing,
    /// Every request waits for so long, and then nothing is answered.
    Silent(Duration),
}

struct Shared {
    mood: Mutex<Mood>,
    state: Mutex<Forges>,
    /// Counts requests of any kind.
    asked: watch::Sender<usize>,
}

#[derive(Default)]
struct Forges {
    seen: Vec<Seen>,
    /// What no forge would have taken.
    wrong: Vec<String>,
    github: github::GitHub,
    gitlab: gitlab::GitLab,
}

impl Forge {
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            mood: Mutex::new(Mood::Well),
            state: Mutex::default(),
            asked: watch::Sender::new(0),
        });
        let mut forge = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            shared,
            serving: None,
        };
        forge.up().await;
        forge
    }

    /// `[apps.hello.report]` for the API of `forge` here.
    pub fn settings(&self, forge: &str) -> String {
        format!(
            "[apps.hello.report]\nforge = \"{forge}\"\nurl = \"http://{}\"\n\
             repository = \"ada/hello\"\ntoken = {{ env = \"REPORT_TOKEN\" }}\n",
            self.address
        )
    }

    /// The same for GitHub, as the App 4711 with the key in `key`.
    pub fn settings_of_app(&self, key: &std::path::Path) -> String {
        let token = "token = { env = \"REPORT_TOKEN\" }";
        let app = format!("app_id = 4711\nprivate_key = {{ file = {key:?} }}");
        self.settings("github").replace(token, &app)
    }

    /// The tokens that the App was given.
    pub fn given(&self) -> Vec<String> {
        self.shared.state.lock().github.given.clone()
    }

    /// Takes the App's token back.
    pub fn revoke(&self) {
        self.shared.state.lock().github.is_revoked = true;
    }

    /// Refuses connections from now on.
    pub async fn down(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Listens at its address.
    pub async fn up(&mut self) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        self.address = listener.local_addr().unwrap();
        let router = Router::new()
            .fallback(answer)
            .with_state(self.shared.clone());
        self.serving = Some(tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        }));
    }

    pub fn set_mood(&self, mood: Mood) {
        *self.shared.mood.lock() = mood;
    }

    /// How many requests came, whatever became of them.
    pub fn asked(&self) -> usize {
        *self.shared.asked.borrow()
    }

    /// Waits until `more` requests have come than `before`.
    pub async fn until_asked(&self, more: usize) {
        let mut asked = self.shared.asked.subscribe();
        let wait = asked.wait_for(|count| *count >= more);
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.expect("requests come").unwrap();
    }

    /// What was taken, oldest first.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state.lock().seen.clone()
    }

    /// The states that a commit was given, oldest first.
    pub fn states(&self, commit: &str) -> Vec<String> {
        let seen = self.seen().into_iter();
        let of_commit = seen.filter(|seen| seen.path.contains(commit));
        let state = |seen: Seen| seen.body["state"].as_str().map(str::to_owned);
        of_commit.filter_map(state).collect()
    }

    /// GitHub's own deployments, oldest first.
    pub fn github_deployments(&self) -> Vec<Deployment> {
        self.shared.state.lock().github.deployments.clone()
    }

    /// GitLab's own deployments, oldest first, and its environments.
    pub fn gitlab_deployments(&self) -> (Vec<Value>, Vec<Value>) {
        let state = self.shared.state.lock();
        (
            state.gitlab.deployments.clone(),
            state.gitlab.environments.clone(),
        )
    }

    /// Waits until `is` is so of what the forge knows.
    pub async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        let mut asked = self.shared.asked.subscribe();
        let wait = async {
            while !is(self) {
                asked.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        let seen = self.seen();
        let seen: Vec<_> = seen
            .iter()
            .map(|it| format!("{} {} {}", it.method, it.path, it.body))
            .collect();
        assert!(waited.is_ok(), "never {what}: {seen:#?}");
    }

    /// Waits until the last state of the commit is `state`; gives all of them.
    pub async fn until_state(&self, commit: &str, state: &str) -> Vec<String> {
        let is = |forge: &Self| forge.states(commit).last().map(String::as_str) == Some(state);
        self.until(&format!("{commit} {state}"), is).await;
        self.states(commit)
    }

    /// Panics if anything came that the forge's documentation does not allow.
    pub fn assert_all_right(&self) {
        let wrong = &self.shared.state.lock().wrong;
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let mut mood = shared.mood.lock().clone();
    if let Mood::Without(commit) = &mood {
        let asked = format!("{} {}", head.uri, String::from_utf8_lossy(&body));
        mood = match head.uri.path().ends_with("/deployments") && asked.contains(commit) {
            true => Mood::Failing(500, vec![]),
            false => Mood::Well,
        };
    }
    let answer = match mood {
        Mood::Silent(time) => {
            shared.asked.send_modify(|count| *count += 1);
            tokio::time::sleep(time).await;
            return Response::builder().status(503).body(Body::empty()).unwrap();
        }
        Mood::Failing(status, headers) => {
            let mut answer = Response::builder().status(status);
            for (name, value) in headers {
                answer = answer.header(name, value);
            }
            let body = json!({ "message": "not now" }).to_string();
            answer.body(Body::from(body)).unwrap()
        }
        Mood::Well | Mood::Losing | Mood::Without(_) => {
            let (mut status, answer) =
                shared
                    .state
                    .lock()
                    .take(&head.method, &head.uri, &head.headers, &body);
            if matches!(mood, Mood::Losing) {
                status = StatusCode::BAD_GATEWAY;
            }
            Response::builder()
                .status(status)
                .header("content-type", "application/json")
                .body(Body::from(answer.to_string()))
                .unwrap()
        }
    };
    // After the state has changed, so that who waits for it sees it.
    shared.asked.send_modify(|count| *count += 1);
    answer
}

impl Forges {
    fn take(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> (StatusCode, Value) {
        let path = uri.path();
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        match self.judge(method, uri, headers, &json) {
            Ok((status, answer)) => {
                self.seen.push(Seen {
                    method: method.clone(),
                    path: path.to_owned(),
                    body: json,
                });
                (status, answer)
            }
            Err(why) => {
                let text = String::from_utf8_lossy(body);
                self.wrong.push(format!("{method} {path} {text}: {why}"));
                let answer = json!({ "message": why });
                (StatusCode::UNPROCESSABLE_ENTITY, answer)
            }
        }
    }

    fn judge(
        &mut self,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: &Value,
    ) -> Result<(StatusCode, Value), String> {
        let query = Query::new(uri.query().unwrap_or_default());
        let path = uri.path();
        if let Some(path) = path.strip_prefix("/api/v3") {
            return self.github.take(method, path, &query, headers, body);
        }
        if let Some(path) = path.strip_prefix("/api/v4") {
            return self.gitlab.take(method, path, &query, headers, body);
        }
        query.allow(&[])?;
        if let Some(path) = path.strip_prefix("/api/v1") {
            return others::gitea(method, path, headers, body);
        }
        if let Some(path) = path.strip_prefix("/2.0") {
            return others::bitbucket(method, path, headers, body);
        }
        if let Some(path) = path.strip_prefix("/rest/api/latest") {
            return others::data_center(method, path, headers, body);
        }
        Err("no API begins like this".into())
    }
}
