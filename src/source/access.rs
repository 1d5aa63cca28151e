//! Credentials for the repository, and verification of its server.

use std::cell::{Cell, RefCell};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use git2::cert::Cert;
use git2::{CertificateCheckStatus, Cred, CredentialType, Error};
use url::Url;

use crate::config::{Repo, Source};

// A server that rejects a key keeps asking; libgit2 leaves it to us to stop.
const ATTEMPTS: u32 = 3;

/// The state that libgit2's callbacks share during one connection.
pub(super) struct Access<'a> {
    repo: &'a Repo,
    source: &'a Source,
    attempts: Cell<u32>,
    /// Why access was refused, in our own words.
    pub(super) refused: RefCell<Option<String>>,
    /// The host key that the server presented.
    pub(super) host_key: RefCell<Option<String>>,
}

impl<'a> Access<'a> {
    pub(super) fn new(repo: &'a Repo, source: &'a Source) -> Self {
        Self {
            repo,
            source,
            attempts: Cell::new(0),
            refused: RefCell::default(),
            host_key: RefCell::default(),
        }
    }

    /// libgit2's credentials callback.
    pub(super) fn credentials(
        &self,
        url: &str,
        user: Option<&str>,
        allowed: CredentialType,
    ) -> Result<Cred, Error> {
        self.attempts.set(self.attempts.get() + 1);
        let cred = if self.attempts.get() > ATTEMPTS {
            Err(match self.repo {
                Repo::Ssh(_) => "the server did not accept the key".to_owned(),
                _ => "the server did not accept the token".to_owned(),
            })
        } else if allowed.contains(CredentialType::USERNAME) {
            Cred::username(self.source.username.as_deref().unwrap_or("git")).map_err(text)
        } else if allowed.contains(CredentialType::SSH_KEY) {
            self.key(user)
        } else if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
            self.token(url)
        } else {
            Err("the server requires an authentication method that is not supported".to_owned())
        };
        cred.map_err(|why| {
            let error = Error::from_str(&why);
            self.refused.borrow_mut().get_or_insert(why);
            error
        })
    }

    fn key(&self, user: Option<&str>) -> Result<Cred, String> {
        let user = user.or(self.source.username.as_deref()).unwrap_or("git");
        let path = (self.source.ssh_key.as_deref())
            .ok_or("the server requires a key, but `ssh_key` is not configured")?;
        // libssh2 reports only "unable to extract public key": check the file first.
        std::fs::File::open(path)
            .map_err(|error| format!("the key `{}` cannot be read: {error}", path.display()))?;
        Cred::ssh_key(user, None, path, None).map_err(text)
    }

    fn token(&self, url: &str) -> Result<Cred, String> {
        let secret = (self.source.token.as_ref())
            .ok_or("the server requires authentication, but `token` is not configured")?;
        let asked = Url::parse(url).map_err(|_| "the server's address is not a valid URL")?;
        let ours = match self.repo {
            Repo::Http(ours) => Url::parse(ours).ok(),
            _ => None,
        };
        if ours.is_none_or(|ours| ours.host_str() != asked.host_str()) {
            return Err("the token was requested by a server other than the configured one".into());
        }
        if asked.scheme() != "https" && !is_loopback(&asked) {
            return Err("the token is sent over https only".into());
        }
        // Forges accept any user name with a token; some refuse an empty one.
        let user = self.source.username.as_deref().unwrap_or("x-access-token");
        let token = secret.read_text().map_err(|error| error.to_string())?;
        Cred::userpass_plaintext(user, &token).map_err(text)
    }

    /// libgit2's certificate callback: a pinned host key must match; everything else is left to
    /// known_hosts or to the system's certificate authorities.
    pub(super) fn certificate(&self, cert: &Cert<'_>) -> Result<CertificateCheckStatus, Error> {
        let Some(key) = cert.as_hostkey() else {
            return Ok(CertificateCheckStatus::CertificatePassthrough);
        };
        let shown = key
            .hash_sha256()
            .map(|hash| format!("SHA256:{}", STANDARD_NO_PAD.encode(hash)));
        self.host_key.replace(shown.clone());
        match &self.source.host_key {
            None => Ok(CertificateCheckStatus::CertificatePassthrough),
            Some(pinned) if shown.as_deref() == Some(pinned.trim_end_matches('=')) => {
                Ok(CertificateCheckStatus::CertificateOk)
            }
            Some(_) => Err(Error::new(
                git2::ErrorCode::Certificate,
                git2::ErrorClass::Ssh,
                "the host key does not match the pinned one",
            )),
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

fn text(error: Error) -> String {
    error.message().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_token_is_read_as_every_secret_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let repo = Repo::Http("https://example.com/x.git".to_owned());
        let source = Source {
            token: Some(Secret::File(path.clone())),
            ..Source::default()
        };
        let token = || Access::new(&repo, &source).token("https://example.com/x.git");
        std::fs::write(&path, "tok\n\n").unwrap();
        assert!(token().is_ok());
        // The file is neither read without a limit nor sent.
        std::fs::write(&path, vec![b'x'; 100 << 10]).unwrap();
        let why = token().err().unwrap();
        assert!(why.contains("longer than 64 KiB"), "{why}");
    }
}
