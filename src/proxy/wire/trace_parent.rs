//! `traceparent`: which trace a request belongs to, and which span it comes from (W3C Trace Context).

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");
/// How long the field is in version 00. A later version may have more, after another dash.
const LENGTH: usize = 55;

/// The ids of a trace and of a span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub trace: [u8; 16],
    pub span: [u8; 8],
}

/// What the request says; `None` if that is nothing, or not valid.
pub fn of(headers: &HeaderMap) -> Option<TraceParent> {
    let mut all = headers.get_all(TRACE_PARENT).iter();
    let (Some(only), None) = (all.next(), all.next()) else {
        return None;
    };
    parse(only.as_bytes())
}

/// Names the span that the app's own are below. Without a `before`, what came with an invalid one goes.
pub fn pass(headers: &mut HeaderMap, before: Option<&TraceParent>, own: &TraceParent) {
    if before.is_none() {
        headers.remove(TRACE_STATE);
    }
    let (trace, span) = (hex::encode(own.trace), hex::encode(own.span));
    if let Ok(value) = HeaderValue::try_from(format!("00-{trace}-{span}-01")) {
        headers.insert(TRACE_PARENT, value);
    }
}

fn parse(text: &[u8]) -> Option<TraceParent> {
    let (text, more) = text.split_at_checked(LENGTH)?;
    let version = digits::<1>(&text[..2])?[0];
    let is_whole = match version {
        0 => more.is_empty(),
        255 => false,
        _ => more.is_empty() || more[0] == b'-',
    };
    let dashes = [2, 35, 52].iter().all(|&at| text[at] == b'-');
    digits::<1>(&text[53..])?;
    let found = TraceParent {
        trace: digits(&text[3..35])?,
        span: digits(&text[36..52])?,
    };
    (is_whole && dashes && found.trace != [0; 16] && found.span != [0; 8]).then_some(found)
}

/// Hexadecimal digits, in lower case only.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let lower = !text.iter().any(u8::is_ascii_uppercase);
    (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(values: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACE_PARENT, value.parse().unwrap());
        }
        of(&headers).map(|it| hex::encode(it.span))
    }

    #[test]
    fn only_a_valid_field_counts() {
        let span = Some("00f067aa0ba902b7".to_owned());
        assert_eq!(read(&[GOOD]), span);
        assert_eq!(read(&[&GOOD.replacen("00", "cc", 1)]), span);
        assert_eq!(
            read(&[&(GOOD.replacen("00", "cc", 1) + "-later")]),
            span,
            "of a later version"
        );
        for wrong in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD.replacen("00", "ff", 1),
            &format!("{GOOD}-more"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf9", "4bg9"),
            &(GOOD.replacen("00", "cc", 1) + "later"),
        ] {
            assert_eq!(read(&[wrong]), None, "{wrong}");
        }
        assert_eq!(read(&[GOOD, GOOD]), None, "which one?");
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn the_state_stays_only_with_the_trace_that_it_belongs_to() {
        let own = TraceParent {
            trace: [1; 16],
            span: [2; 8],
        };
        for (before, states) in [(Some(own), 1), (None, 0)] {
            let mut headers = HeaderMap::new();
            headers.insert(TRACE_STATE, "a=b".parse().unwrap());
            pass(&mut headers, before.as_ref(), &own);
            assert_eq!(of(&headers), Some(own));
            assert_eq!(headers.get_all(TRACE_STATE).iter().count(), states);
        }
    }
}
