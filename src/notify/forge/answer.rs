//! What a forge's answer means.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::http::Answer;
use crate::config::ForgeApi;
use crate::printable::printable;

/// Why a report failed. The sentences are for people and contain no secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// Retry later: not before `wait`, if the forge named a time.
    Later { wait: Option<Duration>, why: String },
    /// The forge will never accept this.
    Refused(String),
}

impl Problem {
    pub fn later(why: String) -> Self {
        Problem::Later { wait: None, why }
    }
}

/// A longer pause than this is assumed to be an error of the forge or of a clock.
const LONGEST: Duration = Duration::from_secs(2 * 3600);

/// The JSON of a successful answer, or the problem.
pub fn judge(forge: ForgeApi, answer: &Answer, now: SystemTime) -> Result<Value, Problem> {
    let status = answer.status;
    if status.is_success() {
        return Ok(answer.json());
    }
    let why = format!("{forge} answered {}{}", status.as_u16(), said(answer));
    // An expired token will be renewed; the status is still to be reported then.
    if status == StatusCode::UNAUTHORIZED {
        let why = format!("{why}; the token is wrong or has expired");
        return Err(Problem::later(why));
    }
    let busy = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
    );
    if busy || status.is_server_error() || is_limited(answer) {
        let wait = pause(&answer.headers, now);
        return Err(Problem::Later { wait, why });
    }
    if status.is_redirection() {
        let to = answer.headers.get("location");
        let to = to.and_then(|to| to.to_str().ok()).unwrap_or("elsewhere");
        return Err(Problem::Refused(format!(
            "{forge} has moved the repository to `{}`; correct `repo`",
            shortened(to)
        )));
    }
    let hint = match status {
        StatusCode::FORBIDDEN => "; the token lacks the permission",
        StatusCode::NOT_FOUND => {
            "; the repository does not exist, or the token has no access to it"
        }
        _ => "",
    };
    Err(Problem::Refused(format!("{why}{hint}")))
}

/// GitHub answers 403 to too many requests as well as to a missing permission.
fn is_limited(answer: &Answer) -> bool {
    answer.status == StatusCode::FORBIDDEN
        && (answer.headers.contains_key("retry-after")
            || number(&answer.headers, "x-ratelimit-remaining") == Some(0)
            || message(&answer.json()).contains("rate limit"))
}

/// How long a pause the forge requests.
fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let until = |time: SystemTime| time.duration_since(now).unwrap_or_default();
    let after = headers.get("retry-after").and_then(|it| it.to_str().ok());
    let after = after.and_then(|text| match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok().map(until),
    });
    let used_up = number(headers, "x-ratelimit-remaining")
        .or(number(headers, "ratelimit-remaining"))
        == Some(0);
    let reset = number(headers, "x-ratelimit-reset").or(number(headers, "ratelimit-reset"));
    let reset = reset
        .filter(|_| used_up)
        .and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .map(until);
    after.or(reset).map(|wait| wait.min(LONGEST))
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

fn said(answer: &Answer) -> String {
    match message(&answer.json()) {
        text if text.is_empty() => String::new(),
        text => format!(": {text}"),
    }
}

/// The message in a forge's error, which each forge puts elsewhere.
fn message(body: &Value) -> String {
    let places = ["/message", "/error/message", "/errors/0/message", "/error"];
    let found = places.iter().find_map(|place| match body.pointer(place)? {
        Value::String(text) => Some(text.clone()),
        Value::Object(_) | Value::Array(_) if *place == "/message" => {
            body.pointer(place).map(Value::to_string)
        }
        _ => None,
    });
    shortened(&found.unwrap_or_default())
}

fn shortened(text: &str) -> String {
    let clean = printable(text).replace(['\n', '\t', '\u{fffd}'], " ");
    clean.chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap()))
                .collect(),
            body: body.to_owned().into(),
        }
    }

    fn judged(status: u16, headers: &[(&'static str, &str)], body: &str) -> Result<Value, Problem> {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        judge(ForgeApi::GitHub, &answer(status, headers, body), now)
    }

    fn wait(problem: Result<Value, Problem>) -> Option<u64> {
        match problem {
            Err(Problem::Later { wait, .. }) => wait.map(|wait| wait.as_secs()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_when_the_forge_says_so() {
        for status in [408, 425, 429, 500, 502, 503, 504] {
            assert_eq!(wait(judged(status, &[], "")), None, "{status}");
        }
        assert_eq!(wait(judged(429, &[("retry-after", "7")], "")), Some(7));
        let date = "Sun, 09 Sep 2001 01:47:10 GMT";
        assert_eq!(wait(judged(503, &[("retry-after", date)], "")), Some(30));
        let past = "Sun, 09 Sep 2001 01:00:00 GMT";
        assert_eq!(wait(judged(503, &[("retry-after", past)], "")), Some(0));
        assert_eq!(wait(judged(503, &[("retry-after", "soon")], "")), None);
        let endless = [("retry-after", "99999999999")];
        assert_eq!(wait(judged(429, &endless, "")), Some(LONGEST.as_secs()));
        let primary = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1000000042"),
        ];
        assert_eq!(wait(judged(403, &primary, "")), Some(42));
        let left = [
            ("x-ratelimit-remaining", "3"),
            ("x-ratelimit-reset", "1000000042"),
        ];
        assert_eq!(wait(judged(429, &left, "")), None);
        let secondary = r#"{"message":"You have exceeded a secondary rate limit."}"#;
        assert_eq!(wait(judged(403, &[], secondary)), None);
        assert_eq!(wait(judged(403, &[("retry-after", "60")], "")), Some(60));
        let gitlab = [
            ("ratelimit-remaining", "0"),
            ("ratelimit-reset", "1000000009"),
        ];
        assert_eq!(wait(judged(429, &gitlab, "")), Some(9));
    }

    #[test]
    fn a_token_that_is_not_good_may_be_renewed() {
        let why = "GitHub answered 401: Bad credentials; the token is wrong or has expired";
        let judged = judged(401, &[], r#"{"message":"Bad credentials"}"#);
        assert_eq!(judged, Err(Problem::later(why.into())));
    }

    #[test]
    fn what_is_refused_for_good_is_said_in_a_sentence() {
        for (status, body, expected) in [
            (
                403,
                r#"{"message":"Resource not accessible"}"#,
                "lacks the permission",
            ),
            (404, "<html>", "404; the repository does not exist"),
            (
                422,
                r#"{"errors":[{"message":"No commit found"}]}"#,
                "422: No commit found",
            ),
            (400, r#"{"error":{"message":"bad key"}}"#, "400: bad key"),
            (
                400,
                r#"{"message":{"ref":["is missing"]}}"#,
                r#"{"ref":["is missing"]}"#,
            ),
            (400, "{\"message\":\"a\\u001b[31mb\"}", "400: ab"),
        ] {
            let Err(Problem::Refused(why)) = judged(status, &[], body) else {
                panic!("{status}");
            };
            assert!(why.contains(expected), "{why}");
        }
        let moved = judged(301, &[("location", "https://x.example/repositories/1")], "");
        let Err(Problem::Refused(why)) = moved else {
            panic!("{moved:?}")
        };
        assert!(why.contains("https://x.example/repositories/1"), "{why}");
        let long = format!(r#"{{"message":"{}"}}"#, "x".repeat(10_000));
        let Err(Problem::Refused(why)) = judged(422, &[], &long) else {
            panic!()
        };
        assert!(why.len() < 300);
    }

    #[test]
    fn a_success_gives_its_json_and_null_where_there_is_none() {
        assert_eq!(judged(201, &[], r#"{"id":7}"#).unwrap()["id"], 7);
        assert_eq!(judged(204, &[], "").unwrap(), Value::Null);
    }
}
