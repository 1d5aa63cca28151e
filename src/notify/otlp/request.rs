//! A request that the proxy has traced, by OpenTelemetry's conventions for HTTP servers.

use super::json::{Kind, Span, number, text};
use crate::proxy::control;

/// Methods that have a name of their own; what clients make up would be as many names.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
];

pub fn span(request: control::Span) -> Span {
    let known = METHODS.contains(&request.method.as_str());
    let (host, port) = address(&request.host);
    let mut attributes = vec![
        text("url.scheme", &request.scheme),
        text("url.path", &request.path),
        text("server.address", host),
        text("cutover.app", &request.app),
        text("cutover.release", &request.release),
        text("cutover.outcome", &request.outcome),
    ];
    attributes.extend(port.map(|port| number("server.port", port.into())));
    match known {
        true => attributes.push(text("http.request.method", &request.method)),
        false => attributes.extend([
            text("http.request.method", "_OTHER"),
            text("http.request.method_original", &request.method),
        ]),
    }
    if request.status > 0 {
        attributes.push(number("http.response.status_code", request.status.into()));
    }
    let answered = matches!(&*request.outcome, "answered" | "maintenance");
    let wrong = match answered {
        true => (request.status >= 500).then(|| request.status.to_string()),
        false => Some(request.outcome),
    };
    if let Some(wrong) = &wrong {
        attributes.push(text("error.type", wrong));
    }
    Span {
        trace: request.trace,
        id: request.id,
        parent: request.parent,
        name: if known { request.method } else { "HTTP".into() },
        kind: Kind::Server,
        began_us: request.began_us,
        ended_us: request.began_us.saturating_add(request.took_us),
        attributes,
        // The status says it all where the app has answered.
        error: wrong.map(|wrong| if answered { String::new() } else { wrong }),
    }
}

/// The name and the port of a `Host` field.
fn address(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok()),
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, status: u16, outcome: &str) -> control::Span {
        control::Span {
            trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
            id: "00f067aa0ba902b7".into(),
            parent: None,
            app: "hello".into(),
            release: "r1".into(),
            scheme: "https".into(),
            host: "a.test:8443".into(),
            method: method.into(),
            path: "/x".into(),
            status,
            outcome: outcome.into(),
            began_us: 1_000_000,
            took_us: 1_500,
        }
    }

    #[test]
    fn an_error_is_what_the_server_did_wrong() {
        let error = |status, outcome| span(request("GET", status, outcome)).error;
        assert_eq!(error(200, "answered"), None);
        assert_eq!(error(404, "answered"), None);
        assert_eq!(error(503, "maintenance"), Some(String::new()));
        assert_eq!(error(500, "answered"), Some(String::new()));
        assert_eq!(error(502, "closed").as_deref(), Some("closed"));
    }

    #[test]
    fn names_are_few() {
        let made_up = span(request("FROBNICATE", 200, "answered"));
        assert_eq!(made_up.name, "HTTP");
        let has = |span: &Span, it| span.attributes.contains(&it);
        assert!(has(&made_up, text("http.request.method", "_OTHER")));
        let usual = span(request("GET", 200, "answered"));
        assert_eq!((&*usual.name, usual.ended_us), ("GET", 1_001_500));
        assert!(has(&usual, text("server.address", "a.test")));
        assert!(has(&usual, number("server.port", 8443)));
        assert_eq!(address("[::1]"), ("[::1]", None));
        assert_eq!(address("[::1]:80"), ("[::1]", Some(80)));
    }
}
