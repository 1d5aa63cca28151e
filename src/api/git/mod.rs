//! Deploying with git itself: `git push https://deploy.example.com/git/<app>.git main`. git speaks its
//! own protocol (`git http-backend`, started without a shell); the code here decides who may push what,
//! and adds the deployment's log to what the pusher sees.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::BoxFuture;
use tokio::sync::{Semaphore, mpsc};

use super::error::Kind;
use super::peer;
use crate::deploy::follow::Until;
use crate::deploy::intake::Outcome;
use crate::ids::{AppName, DeploymentId};
use crate::log_limit::limited;
use crate::principal::{Principal, Requester, Role};

mod agent;
mod backend;
mod commands;
mod packet;
mod push;
mod report;

pub use crate::store::pending_pushes::PendingPush;
pub use agent::of_agent;

/// The most concurrent git processes; each may keep a processor busy for a long time.
const PROCESSES: usize = 8;
/// The longest user name that is recorded with a token, in characters.
const LONGEST_USER: usize = 100;

/// What these paths need from the agent.
pub struct Git {
    /// The repository that an app is deployed from.
    pub repository: Box<dyn Fn(&str) -> Found + Send + Sync>,
    /// The app that was probably meant by a name, of those that the caller may see.
    pub nearest: Box<Nearest>,
    /// The holder of a token. Compares in constant time.
    pub principal: Box<Authenticate>,
    /// Called before git may move a ref. An error refuses the push.
    pub begin: Box<Step<()>>,
    /// Called with the same pushes as `begin`, once git has ended and `moved` has returned.
    pub end: Box<Step<()>>,
    /// Called with the refs that git has moved: decides about each, and returns the outcomes. An error
    /// is shown to the pusher; the pushed commits are kept.
    pub moved: Box<Step<Vec<Outcome>>>,
    /// A deployment's log as it grows. The last lines say how the deployment ended.
    pub follow: Box<dyn Fn(DeploymentId, Until) -> Log + Send + Sync>,
}

pub type Nearest = dyn Fn(&Principal, &str) -> Option<String> + Send + Sync;

pub type Authenticate = dyn Fn(String) -> BoxFuture<'static, Option<Principal>> + Send + Sync;

/// Stores something about the refs of a push. An error says why that failed.
pub type Step<T> = dyn Fn(Vec<PendingPush>) -> BoxFuture<'static, Result<T, String>> + Send + Sync;

pub type RefPolicy = dyn Fn(&str) -> Result<(), String> + Send + Sync;

/// Pieces of a log's text.
pub type Log = mpsc::Receiver<Vec<u8>>;

pub enum Found {
    Repository(Repository),
    /// The app takes its commits from this address, which is not a path on this machine.
    Elsewhere {
        app: AppName,
        address: String,
    },
    /// An app had this name before.
    Renamed {
        now: AppName,
    },
    NoSuchApp,
}

/// A bare repository on this machine; the first push creates it.
#[derive(Clone)]
pub struct Repository {
    pub app: AppName,
    pub path: PathBuf,
    /// The branch that a clone checks out.
    pub branch: String,
    /// Whether a push to this ref, `refs/…`, is deployed; an error is the reason why not. Pushes to
    /// other refs are refused.
    pub ref_policy: Arc<RefPolicy>,
}

struct Shared {
    git: Git,
    processes: Arc<Semaphore>,
}

/// The router for the paths below `/git`.
pub fn router<S: Clone + Send + Sync + 'static>(git: Git) -> Router<S> {
    let shared = Arc::new(Shared {
        git,
        processes: Arc::new(Semaphore::new(PROCESSES)),
    });
    Router::new()
        .route("/{repository}/info/refs", get(refs))
        .route("/{repository}/git-upload-pack", post(fetch))
        .route("/{repository}/git-receive-pack", post(receive))
        .with_state(shared)
}

async fn refs(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let role = match request.uri().query() {
        Some("service=git-receive-pack") => Role::Deploy,
        _ => Role::Read,
    };
    let client = peer::client(request.extensions());
    let (repository, _) = shared.enter(&name, role, request.headers(), client).await?;
    match request.uri().query() {
        Some("service=git-receive-pack") => {
            let (made, path) = (repository.clone(), repository.path.clone());
            tokio::task::spawn_blocking(move || make(&made))
                .await
                .unwrap_or_else(|error| Err(error.to_string()))
                .map_err(|why| Refusal::failed(format!("`{}`: {why}", path.display())))?;
        }
        Some("service=git-upload-pack") if repository.path.exists() => {}
        Some("service=git-upload-pack") => {
            let message = format!("nothing has been pushed to `{}` yet", repository.app);
            return Err(Refusal::new(StatusCode::NOT_FOUND, message));
        }
        _ => {
            let message = "only git's smart HTTP protocol is supported".to_owned();
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        }
    }
    backend::pass(&shared, &repository, "info/refs", Method::GET, request).await
}

async fn fetch(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let client = peer::client(request.extensions());
    let (repository, _) = shared
        .enter(&name, Role::Read, request.headers(), client)
        .await?;
    backend::pass(
        &shared,
        &repository,
        "git-upload-pack",
        Method::POST,
        request,
    )
    .await
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, Refusal> {
    let client = peer::client(request.extensions());
    let (repository, pusher) = shared
        .enter(&name, Role::Deploy, request.headers(), client)
        .await?;
    push::receive(shared, repository, pusher, request).await
}

impl Shared {
    /// Authorizes a request: first identifies the sender, then checks what is requested, so that nobody
    /// without a token learns which apps exist.
    async fn enter(
        &self,
        name: &str,
        role: Role,
        headers: &HeaderMap,
        client: Option<IpAddr>,
    ) -> Result<(Repository, Principal), Refusal> {
        let given = credentials(headers);
        let principal = match &given {
            Some((_, token)) => (self.git.principal)(token.clone()).await,
            None => None,
        };
        let (Some(principal), Some((user, _))) = (principal, given) else {
            return Err(unauthorized(headers));
        };
        let app = name.strip_suffix(".git").unwrap_or(name);
        let found = match (self.git.repository)(app) {
            Found::Repository(it) if !principal.sees(&it.app) => Found::NoSuchApp,
            Found::Elsewhere { app, .. } if !principal.sees(&app) => Found::NoSuchApp,
            Found::Renamed { now } if !principal.sees(&now) => Found::NoSuchApp,
            found => found,
        };
        if !principal.may(role) {
            let message = format!(
                "{} has the role `{}`; this needs `{}`",
                principal.who,
                principal.role.as_str(),
                role.as_str()
            );
            return Err(Refusal::new(StatusCode::FORBIDDEN, message));
        }
        match found {
            Found::Repository(repository) if is_foreign(&repository.path) => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                format!("the repository of `{app}` belongs to another user: push over SSH"),
            )),
            Found::Repository(repository) => {
                let pusher = pusher(principal, user);
                let who = pusher.who.at(client);
                Ok((repository, Principal { who, ..pusher }))
            }
            Found::Elsewhere { address, .. } => Err(Refusal::new(
                StatusCode::FORBIDDEN,
                format!("`{app}` is deployed from {address}: push there"),
            )),
            Found::Renamed { now } => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                format!("the app `{app}` has been renamed to `{now}`: push to `/git/{now}.git`"),
            )),
            Found::NoSuchApp => {
                let near = (self.git.nearest)(&principal, app);
                let near = near.map(|near| format!(": did you mean `/git/{near}.git`?"));
                let app = app.escape_debug();
                let message = format!("there is no app `{app}`{}", near.unwrap_or_default());
                Err(Refusal::new(StatusCode::NOT_FOUND, message))
            }
        }
    }
}

fn unauthorized(headers: &HeaderMap) -> Refusal {
    let message = "the token is missing or wrong: give it as the password, with any user name; \
                   `cutover token` prints it on the server";
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, message.into());
    // git first tries without a password.
    match headers.contains_key(header::AUTHORIZATION) {
        true => refusal.refusing(Kind::GitToken),
        false => refusal,
    }
}

/// Only the token is verified; the user name is whatever the pusher entered.
fn pusher(principal: Principal, user: String) -> Principal {
    let user: String = user.escape_debug().take(LONGEST_USER).collect();
    let who = match principal.who {
        Requester::Token { token, from } => Requester::GitHttp {
            token,
            from,
            user: (!user.is_empty()).then_some(user),
        },
        other => other,
    };
    Principal { who, ..principal }
}

/// The user name and the password of a request.
fn credentials(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, pair) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(pair.trim()).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// Whether another user owns the repository: git would run that user's hooks as the agent's user.
fn is_foreign(path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let us = rustix::process::geteuid().as_raw();
    path.metadata().is_ok_and(|found| found.uid() != us)
}

fn make(repository: &Repository) -> Result<(), String> {
    let path = &repository.path;
    if let Some(why) = crate::source::unsupported(path) {
        return Err(why);
    }
    if path.join("HEAD").exists() {
        return Ok(());
    }
    if crate::source::is_work_tree(path) {
        return Err(
            "it is a work tree, and git refuses a push to its branch: run `git clone --bare` on it, and set \
             `repo` to the clone"
                .into(),
        );
    }
    let mut options = git2::RepositoryInitOptions::new();
    options
        .bare(true)
        .mkpath(true)
        .no_reinit(false)
        .initial_head(&repository.branch);
    git2::Repository::init_opts(&repository.path, &options)
        .map(drop)
        .map_err(|error| error.message().to_owned())
}

/// A refusal in plain text, which git shows to its user.
struct Refusal {
    status: StatusCode,
    message: String,
    refused: Option<Kind>,
}

impl Refusal {
    fn new(status: StatusCode, message: String) -> Self {
        Self {
            status,
            message,
            refused: None,
        }
    }

    fn refusing(self, kind: Kind) -> Self {
        Self {
            refused: Some(kind),
            ..self
        }
    }

    fn failed(why: String) -> Self {
        limited!(
            error,
            "a push or fetch over HTTP failed",
            %why,
            "a push or fetch over HTTP failed"
        );
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
        let mut response = (self.status, [text], self.message + "\n").into_response();
        if let Some(kind) = self.refused {
            response.extensions_mut().insert(kind);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let wanted = header::HeaderValue::from_static("Basic realm=\"cutover\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, wanted);
        }
        response
    }
}
