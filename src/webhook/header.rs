//! Headers of a delivery.

use http::HeaderMap;

/// The header's value; `None` where it is absent, there twice, or not visible ASCII.
pub(super) fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    match values.next() {
        None => value.to_str().ok(),
        Some(_) => None,
    }
}

/// A value for the record: what is longer than any forge's is cut.
pub(super) fn short(headers: &HeaderMap, name: &str) -> Option<String> {
    one(headers, name)
        .filter(|value| !value.is_empty())
        .map(|value| value.chars().take(200).collect())
}
