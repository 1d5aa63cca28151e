//! Who calls the API: the holder of a token, or a process that can open the Unix socket. Also which
//! role each handler requires.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::Kind;
use super::{Api, ApiError, peer};
use crate::ids::AppName;
use crate::principal::{Principal, Requester, Role, Scope};
use crate::store::{Store, tokens as table};

/// The tokens that are accepted by the API: those that the agent was started with, and those in the
/// database.
pub struct Tokens {
    fixed: Vec<Token>,
    store: Store,
}

/// A token that the agent was started with, of which only the hash is kept, so that it cannot be logged.
pub struct Token {
    name: String,
    hash: [u8; 32],
    apps: Scope,
    role: Role,
}

/// Set on a request that came over the Unix socket: the user id of the process that sent it.
#[derive(Clone, Copy)]
pub struct Local {
    pub uid: u32,
}

impl Token {
    pub fn new(name: &str, text: &str, apps: Scope, role: Role) -> Self {
        Self {
            name: name.to_owned(),
            hash: Sha256::digest(text).into(),
            apps,
            role,
        }
    }
}

/// The token that the agent makes or is given by its environment.
pub const ADMIN: &str = "admin";

impl Tokens {
    pub fn new(fixed: Vec<Token>, store: Store) -> Self {
        Self { fixed, store }
    }

    /// The token `admin`: from `CUTOVER_TOKEN`, else from `data_dir/token`, which is created if it does
    /// not exist.
    pub fn load(data_dir: &Path, store: Store) -> io::Result<Self> {
        let text = match std::env::var("CUTOVER_TOKEN") {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            _ => read_or_make(data_dir)?,
        };
        let admin = Token::new(ADMIN, &text, Scope::All, Role::Admin);
        Ok(Self::new(vec![admin], store))
    }

    /// The holder of this token.
    pub(super) async fn principal(&self, text: &str) -> Option<Principal> {
        self.with_hash(&hashed(text)).await
    }

    /// The holder of the token with this SHA-256, in hex. Compares hashes, so that neither the time taken
    /// nor the length reveals anything. Without the database, the token `admin` is accepted all the
    /// same.
    pub(super) async fn with_hash(&self, hash: &str) -> Option<Principal> {
        let given = hex::decode(hash).ok()?;
        let mut found = None;
        for token in &self.fixed {
            if bool::from(token.hash.ct_eq(&given)) {
                found = Some(token);
            }
        }
        if let Some(token) = found {
            return Some(holder(&token.name, token.apps.clone(), token.role));
        }
        let wanted = hash.to_owned();
        let read = self.store.read(move |db| table::with_hash(db, &wanted));
        let token = read.await.ok()??;
        if table::is_used_anew(&token) {
            let name = token.name.clone();
            let used = self.store.write(move |db| table::set_used(db, &name));
            if let Err(error) = used.await {
                tracing::warn!(%error, "failed to record the use of a token");
            }
        }
        Some(holder(&token.name, token.apps, token.role))
    }
}

fn holder(name: &str, apps: Scope, role: Role) -> Principal {
    Principal {
        who: Requester::Token {
            token: name.to_owned(),
            from: None,
        },
        apps,
        role,
    }
}

/// Random, in hex.
pub(super) fn random() -> Result<String, ApiError> {
    let mut bytes = [0u8; 32];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(hex::encode(bytes)),
        Err(error) => {
            tracing::error!(%error, "no random bytes");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let message = "the system has no random bytes";
            Err(ApiError::new(status, "no_random", message, "try again"))
        }
    }
}

/// SHA-256, in hex.
pub(super) fn hashed(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn read_or_make(data_dir: &Path) -> io::Result<String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let path = data_dir.join("token");
    match std::fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut random = [0u8; 32];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let text = hex::encode(random);
    let temporary = data_dir.join("token.new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, &path)?;
    Ok(text)
}

/// The token that a request carries.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Sets the [`Principal`] on a request, or answers 401. Handlers check what the principal may do.
pub async fn authenticate(
    State(api): State<Arc<Api>>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let local = request.extensions().get::<Local>().copied();
    let principal = match (local, bearer(request.headers())) {
        // The socket's mode admits the agent's own user and root.
        (Some(Local { uid }), _) => Some(Principal::admin(Requester::Local { uid })),
        (None, Some(token)) => api.tokens.principal(token).await,
        (None, None) => None,
    };
    let mut principal = principal.ok_or_else(unauthorized)?;
    principal.who = principal.who.at(peer::client(request.extensions()));
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

pub(super) fn unauthorized() -> ApiError {
    ApiError::new(
        StatusCode::UNAUTHORIZED,
        "unauthorized",
        "the token is missing or wrong",
        "send `Authorization: Bearer TOKEN`; `cutover token` prints it on the server",
    )
    .refusing(Kind::Token)
}

/// The caller, as set by [`authenticate`]. On a route without it, nobody is admitted.
impl<S: Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<Principal>().cloned();
        found.ok_or_else(unauthorized)
    }
}

/// Checks that the caller may do this with an app. For a caller, an app outside their scope does not
/// exist.
pub fn check(caller: &Principal, role: Role, app: &AppName) -> Result<(), ApiError> {
    if !caller.sees(app) {
        return Err(ApiError::no_such_app(app.as_str()));
    }
    check_role(caller, role)
}

/// Checks that the caller may do this with the server itself, and so with every app.
pub fn check_server(caller: &Principal, role: Role) -> Result<(), ApiError> {
    check_role(caller, role)?;
    match caller.apps {
        Scope::All => Ok(()),
        Scope::Apps(_) => Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!(
                "{} is for some apps only; this concerns all of them",
                caller.who
            ),
            "use a token for all apps",
        )),
    }
}

/// Whether a request may see what the server says of itself. As long as the agent has no domain, its
/// address is for this machine only and all may.
pub async fn sees_server(api: &Api, request: &Parts) -> bool {
    if api.agent.in_force().config.agent.domain.is_none() {
        return true;
    }
    if request.extensions.get::<Local>().is_some() {
        return true;
    }
    match bearer(&request.headers) {
        Some(token) => {
            let caller = api.tokens.principal(token).await;
            caller.is_some_and(|caller| check_server(&caller, Role::Read).is_ok())
        }
        None => false,
    }
}

/// Checks only the caller's role, for requests that are not about one app.
pub fn check_role(caller: &Principal, role: Role) -> Result<(), ApiError> {
    if caller.may(role) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "forbidden",
        format!(
            "{} has the role `{}`; this needs `{}`",
            caller.who,
            caller.role.as_str(),
            role.as_str()
        ),
        "use a token with that role",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let first = read_or_make(folder.path()).unwrap();
        assert_eq!(read_or_make(folder.path()).unwrap(), first);
        let mode = std::fs::metadata(folder.path().join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = Store::open(folder.path()).unwrap();
        let tokens = Tokens::load(folder.path(), store).unwrap();
        let admin = tokens.principal(&first).await.unwrap();
        assert_eq!((admin.apps, admin.role), (Scope::All, Role::Admin));
        assert_eq!(tokens.principal("").await, None);
        assert_eq!(tokens.principal(&first[1..]).await, None);
    }
}
