//! Who sent a request. Each forge is an arm here and a file of its own, which is pure.

use std::fmt;

use http::HeaderMap;

use super::{Content, Refusal, signature};

mod github;

/// A place that sends webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forge {
    GitHub,
}

impl Forge {
    /// By the headers that only this forge sends.
    pub fn detect(headers: &HeaderMap) -> Option<Self> {
        headers.contains_key(github::EVENT).then_some(Self::GitHub)
    }

    /// Whether the request carries a valid signature of the kind that this forge makes today.
    pub fn is_signed(self, secrets: &[Vec<u8>], headers: &HeaderMap, body: &[u8]) -> bool {
        match self {
            Self::GitHub => {
                let given =
                    text(headers, github::SIGNATURE).and_then(|t| t.strip_prefix("sha256="));
                given.is_some_and(|given| signature::is_valid(secrets, given, body))
            }
        }
    }

    /// The event's name and what the body says about it.
    pub fn parse(self, headers: &HeaderMap, body: &[u8]) -> Result<(String, Content), Refusal> {
        match self {
            Self::GitHub => {
                let event = text(headers, github::EVENT).unwrap_or_default();
                let body = json_of(headers, body)?;
                Ok((event.to_owned(), github::parse(event, &body)?))
            }
        }
    }

    /// The forge's own id of the request.
    pub fn delivery(self, headers: &HeaderMap) -> Option<String> {
        match self {
            Self::GitHub => text(headers, github::DELIVERY).map(str::to_owned),
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GitHub => "github",
        })
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The JSON of a body: the body itself, or the field `payload` of a form.
fn json_of(headers: &HeaderMap, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let kind = text(headers, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(body.to_vec());
    }
    let mut fields = url::form_urlencoded::parse(body);
    let payload = fields.find(|(name, _)| name == "payload");
    payload
        .map(|(_, value)| value.into_owned().into_bytes())
        .ok_or_else(|| Refusal::Malformed("the form has no field `payload`".into()))
}
