//! When the repository's token is sent, and to whom.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use url::{Host, Url};

use crate::config::Source;

/// The header for the server at `asked`. An error says why it does not get the token.
pub fn header(configured: &Url, asked: &Url, source: &Source) -> Result<HeaderValue, String> {
    let secret = (source.token.as_ref())
        .ok_or("the server requires authentication, but `token` is not configured")?;
    if configured.host() != asked.host() {
        return Err("the token was requested by a server other than the configured one".into());
    }
    if asked.scheme() != "https" && !is_loopback(asked) {
        return Err("the token is sent over https only".into());
    }
    // Forges accept any user name with a token; some refuse an empty one.
    let user = source.username.as_deref().unwrap_or("x-access-token");
    let token = secret.read_text().map_err(|error| error.to_string())?;
    let pair = STANDARD.encode(format!("{user}:{token}"));
    let header = HeaderValue::from_str(&format!("Basic {pair}"));
    let mut header = header.map_err(|error| error.to_string())?;
    header.set_sensitive(true);
    Ok(header)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_token_is_read_as_every_secret_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let source = Source {
            token: Some(Secret::File(path.clone())),
            ..Source::default()
        };
        let url = Url::parse("https://example.com/x.git").unwrap();
        let token = || header(&url, &url, &source);
        std::fs::write(&path, "tok\n\n").unwrap();
        assert_eq!(token().unwrap(), "Basic eC1hY2Nlc3MtdG9rZW46dG9r");
        // The file is neither read without a limit nor sent.
        std::fs::write(&path, vec![b'x'; 100 << 10]).unwrap();
        let why = token().err().unwrap();
        assert!(why.contains("longer than 64 KiB"), "{why}");
    }

    #[test]
    fn only_the_configured_server_gets_it_and_nobody_on_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "tok").unwrap();
        let source = Source {
            token: Some(Secret::File(path)),
            ..Source::default()
        };
        let url = |text: &str| Url::parse(text).unwrap();
        for (configured, asked, gets) in [
            ("http://a.example/x", "https://a.example/x", true),
            ("https://a.example/x", "https://A.example:8443/y", true),
            ("http://[::1]/x", "http://[::1]/x", true),
            ("http://localhost/x", "http://localhost/x", true),
            ("https://a.example/x", "https://b.example/x", false),
            ("https://a.example/x", "https://a.example.org/x", false),
            ("http://a.example/x", "http://a.example/x", false),
            (
                "http://localhost.example/x",
                "http://localhost.example/x",
                false,
            ),
        ] {
            let header = header(&url(configured), &url(asked), &source);
            assert_eq!(header.is_ok(), gets, "{configured} {asked}");
        }
    }
}
