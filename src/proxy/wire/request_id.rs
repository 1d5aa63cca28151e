//! An id for each request, by which it can be found in the logs of everything that it passed through.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The longest id that is accepted from a client, in characters.
const LONGEST: usize = 128;

thread_local! {
    /// Differs from that of any other thread or proxy.
    static SEED: Cell<u128> = {
        let mut seed = [0; 16];
        let _ = getrandom::fill(&mut seed);
        Cell::new(u128::from_ne_bytes(seed))
    };
}

/// Keeps the id that the request has, or assigns one.
pub fn ensure(headers: &mut HeaderMap) {
    let has_one = |id: &HeaderValue| (1..=LONGEST).contains(&id.len());
    if !headers.get(REQUEST_ID).is_some_and(has_one) {
        headers.insert(REQUEST_ID, new());
    }
}

/// The request's id, for the log.
pub fn of(headers: &HeaderMap) -> String {
    let id = headers.get(REQUEST_ID).map(HeaderValue::as_bytes);
    String::from_utf8_lossy(id.unwrap_or_default()).into_owned()
}

/// 32 hexadecimal digits. Unique, not secret.
fn new() -> HeaderValue {
    let seed = SEED
        .get()
        .wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    SEED.set(seed);
    let mut text = [0; 32];
    let mixed = seed ^ (seed >> 64);
    hex::encode_to_slice(mixed.to_be_bytes(), &mut text).expect("two digits for each byte");
    HeaderValue::from_bytes(&text).expect("digits are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_passed_or_made() {
        let after = |given: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(given) = given {
                headers.insert(REQUEST_ID, given.parse().unwrap());
            }
            ensure(&mut headers);
            of(&headers)
        };
        assert_eq!(after(Some("r1")), "r1");
        let made = after(None);
        assert_eq!(made.len(), 32);
        assert_ne!(after(None), made);
        for unfit in ["", &"x".repeat(129)] {
            assert_eq!(after(Some(unfit)).len(), 32);
        }
    }
}
