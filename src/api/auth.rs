//! Who may call the API: the holder of the token, and whoever may open the Unix socket.

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::Kind;
use super::{Api, ApiError};

/// The token named `admin`. Only its hash is kept, so that it cannot be logged.
pub struct Token([u8; 32]);

/// Marks a request that came over the Unix socket, as a request extension.
#[derive(Clone)]
pub struct Local;

impl Token {
    pub fn new(text: &str) -> Self {
        Self(Sha256::digest(text).into())
    }

    /// Reads `CUTOVER_TOKEN`, or else `data_dir/token`, which is created if it does not exist.
    pub fn load(data_dir: &Path) -> io::Result<Self> {
        match std::env::var("CUTOVER_TOKEN") {
            Ok(text) if !text.trim().is_empty() => Ok(Self::new(text.trim())),
            _ => read_or_make(data_dir).map(|text| Self::new(&text)),
        }
    }

    // Of the hashes, so that neither the time nor the length tells anything.
    pub(super) fn is(&self, text: &str) -> bool {
        let given: [u8; 32] = Sha256::digest(text).into();
        bool::from(self.0.ct_eq(&given))
    }
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

/// Lets an authorised request through and answers 401 to any other.
pub async fn require(
    State(api): State<Arc<Api>>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|value| value.split_once(' '));
    let allowed = match bearer {
        _ if request.extensions().get::<Local>().is_some() => true,
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
            api.token.is(token.trim())
        }
        _ => false,
    };
    if !allowed {
        return Err(ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "the token is missing or wrong",
            "send `Authorization: Bearer TOKEN`; `cutover token` prints it on the server",
        )
        .refusing(Kind::Token));
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let first = read_or_make(folder.path()).unwrap();
        assert_eq!(read_or_make(folder.path()).unwrap(), first);
        let mode = std::fs::metadata(folder.path().join("token"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(Token::new(&first).is(&first));
        assert!(!Token::new(&first).is(""));
        assert!(!Token::new(&first).is(&first[1..]));
    }
}
