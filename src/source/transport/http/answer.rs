//! What a server's answer means, unless it is git's.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, StatusCode};
use url::Url;

use super::step::Step;
use crate::source::resolve::line;
use crate::source::transport::session::Failure;

const REFS: &str = "/info/refs";

/// Whether a 200 is an answer of git's smart protocol. An error says what it is instead.
pub fn check(step: Step, headers: &HeaderMap) -> Result<(), String> {
    let coding = text(headers, CONTENT_ENCODING).trim();
    if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
        let coding = line(coding);
        return Err(format!(
            "it compresses its answer (`{coding}`), although that was not asked for"
        ));
    }
    match essence(headers).as_str() {
        kind if kind == step.content_type() => Ok(()),
        // What a server of plain files sends.
        "" | "text/plain" | "application/octet-stream" if step == Step::Refs => Err(
            "it serves the repository's files only, git's old \"dumb\" protocol, which is not supported"
                .into(),
        ),
        kind => Err(format!(
            "it answers with `{}`, which no git server does",
            line(kind)
        )),
    }
}

/// Whether a 401 can be answered with a token.
pub fn takes_a_token(headers: &HeaderMap) -> Result<(), String> {
    let mut ways = headers.get_all(WWW_AUTHENTICATE).iter().peekable();
    let is_basic = |way: &[u8]| {
        let way = way.to_ascii_lowercase();
        way.windows(5).any(|part| part == b"basic")
    };
    match ways.peek().is_none() || ways.any(|way| is_basic(way.as_bytes())) {
        true => Ok(()),
        false => {
            Err("the server requires an authentication method that is not supported".to_owned())
        }
    }
}

/// The repository's address, when the request for its refs is redirected.
pub fn redirected(asked: &Url, headers: &HeaderMap) -> Result<Url, String> {
    let to = (headers.get(LOCATION)).and_then(|to| std::str::from_utf8(to.as_bytes()).ok());
    let to = to.and_then(|to| asked.join(to).ok());
    let mut to = to.ok_or("it redirects, but does not say where to")?;
    to.set_query(None);
    to.set_fragment(None);
    // What a redirect brings along is not ours to send.
    let _ = to.set_username("").and(to.set_password(None));
    let shown = line(to.as_str());
    if to.scheme() != "https" && to.scheme() != asked.scheme() {
        return Err(format!("it redirects from https to `{shown}`"));
    }
    let Some(base) = to.path().strip_suffix(REFS).map(str::to_owned) else {
        return Err(format!(
            "it redirects to `{shown}`, which is no repository: the address is wrong, or requires a login"
        ));
    };
    to.set_path(&base);
    Ok(to)
}

/// What any other status means; `body` is the beginning of what comes with it.
pub fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
    let said = match essence(headers).as_str() {
        // Of a page of HTML, the status says as much.
        "text/plain" => String::from_utf8_lossy(body),
        _ => "".into(),
    };
    let said = said.lines().map(line).find(|text| !text.is_empty());
    let said = said.map_or_else(String::new, |said| format!(": {said}"));
    match status {
        StatusCode::UNAUTHORIZED => {
            Failure::Refused(format!("the server did not accept the token{said}"))
        }
        StatusCode::FORBIDDEN => Failure::Refused(format!("it answers with `{status}`{said}")),
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => Failure::Unreachable(format!(
            "the environment's proxy requires a user name and a password{said}"
        )),
        _ if is_limit(status) => Failure::Limited(format!("it answers with `{status}`{said}")),
        _ => Failure::Unreachable(format!("it answers with `{status}`{said}")),
    }
}

/// Whether the server means that there were too many requests, or that a quota is used up.
pub fn is_limit(status: StatusCode) -> bool {
    const BANDWIDTH: u16 = 509;
    matches!(
        status,
        StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::INSUFFICIENT_STORAGE
    ) || status.as_u16() == BANDWIDTH
}

/// The content type without its parameters.
fn essence(headers: &HeaderMap) -> String {
    let kind = text(headers, CONTENT_TYPE).split(';').next();
    kind.unwrap_or_default().trim().to_ascii_lowercase()
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_names_the_repository_or_nothing() {
        let asked = "https://a.example/x/info/refs?service=git-upload-pack";
        let asked = Url::parse(asked).unwrap();
        let to = |location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            redirected(&asked, &headers).map(|base| base.to_string())
        };
        for (location, base) in [
            (
                "/x.git/info/refs?service=git-upload-pack",
                "https://a.example/x.git",
            ),
            ("../../y/info/refs", "https://a.example/y"),
            ("//b.example/x/info/refs", "https://b.example/x"),
            (
                "https://ann:pw@b.example:8443/x/info/refs#z",
                "https://b.example:8443/x",
            ),
        ] {
            assert_eq!(to(location).as_deref(), Ok(base), "{location}");
        }
        for location in [
            "http://a.example/x/info/refs",
            "file:///x/info/refs",
            "/login",
            "https://",
        ] {
            assert!(to(location).is_err(), "{location}");
        }
        assert!(redirected(&asked, &HeaderMap::new()).is_err());
    }
}
