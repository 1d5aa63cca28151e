//! Headers of a delivery.

use http::HeaderMap;

/// The header's value; `None` if it is missing, repeated, or not visible ASCII.
pub(super) fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    match values.next() {
        None => value.to_str().ok(),
        Some(_) => None,
    }
}

/// Why [`one`] or [`short`] returns `None`, as the end of a sentence.
pub(super) fn fault(headers: &HeaderMap, name: &str) -> &'static str {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => "is missing",
        (Some(_), Some(_)) => "is present more than once",
        (Some(value), None) if value.is_empty() => "is empty",
        _ => "is not plain ASCII",
    }
}

/// A value for the record, truncated if it is longer than any forge's.
pub(super) fn short(headers: &HeaderMap, name: &str) -> Option<String> {
    one(headers, name)
        .filter(|value| !value.is_empty())
        .map(|value| value.chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_header_is_said() {
        let mut headers = HeaderMap::new();
        assert_eq!(fault(&headers, "x-event"), "is missing");
        headers.append("x-event", "".parse().unwrap());
        assert_eq!(short(&headers, "x-event"), None);
        assert_eq!(fault(&headers, "x-event"), "is empty");
        headers.append("x-event", "push".parse().unwrap());
        assert_eq!(short(&headers, "x-event"), None);
        assert_eq!(fault(&headers, "x-event"), "is present more than once");
    }
}
