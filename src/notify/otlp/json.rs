//! OTLP's JSON: ids in hexadecimal digits, 64-bit numbers as strings, enums as numbers. Pure.

use serde_json::{Value, json};

/// Who made the spans.
pub struct Service<'a> {
    pub name: &'a str,
    /// The agent's id.
    pub instance: &'a str,
}

/// Kinds of spans, as the protocol numbers them.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Internal = 1,
    Server = 2,
}

pub struct Span {
    /// 32 hexadecimal digits.
    pub trace: String,
    /// 16 hexadecimal digits.
    pub id: String,
    pub parent: Option<String>,
    pub name: String,
    pub kind: Kind,
    /// In microseconds since 1970.
    pub began_us: u64,
    pub ended_us: u64,
    pub attributes: Vec<Value>,
    /// What went wrong.
    pub error: Option<String>,
}

/// The body of an export request.
pub fn body<'a>(services: impl IntoIterator<Item = (Service<'a>, Vec<Span>)>) -> Value {
    let services = services.into_iter().filter(|(_, spans)| !spans.is_empty());
    let resource = |(service, spans): (Service<'_>, Vec<Span>)| {
        let version = env!("CARGO_PKG_VERSION");
        json!({
            "resource": { "attributes": [
                text("service.name", service.name),
                text("service.version", version),
                text("service.instance.id", service.instance),
            ] },
            "scopeSpans": [{
                "scope": { "name": "cutover", "version": version },
                "spans": spans.into_iter().map(span).collect::<Vec<_>>(),
            }],
        })
    };
    json!({ "resourceSpans": services.map(resource).collect::<Vec<_>>() })
}

pub fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

pub fn number(key: &str, value: i64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn span(span: Span) -> Value {
    let nanos = |us: u64| us.saturating_mul(1000).to_string();
    let mut json = json!({
        "traceId": span.trace,
        "spanId": span.id,
        "name": span.name,
        "kind": span.kind as u8,
        "startTimeUnixNano": nanos(span.began_us),
        "endTimeUnixNano": nanos(span.ended_us.max(span.began_us)),
        "attributes": span.attributes,
        "status": {},
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = parent.into();
    }
    if let Some(error) = span.error {
        json["status"] = json!({ "code": 2, "message": error });
    }
    json
}
