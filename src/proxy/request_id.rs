//! A name for each request, by which it is found in the logs of all that it passed through.

use std::cell::Cell;

use http::{HeaderMap, HeaderName, HeaderValue};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// A longer one is no name.
const LONGEST: usize = 128;

thread_local! {
    /// Unlike that of any other thread or proxy.
    static SEED: Cell<u128> = {
        let mut seed = [0; 16];
        let _ = getrandom::fill(&mut seed);
        Cell::new(u128::from_ne_bytes(seed))
    };
}

/// Keeps the id that the request has, or gives it one.
pub fn ensure(headers: &mut HeaderMap) -> HeaderValue {
    match headers.get(REQUEST_ID) {
        Some(id) if (1..=LONGEST).contains(&id.len()) => id.clone(),
        _ => {
            let id = new();
            headers.insert(REQUEST_ID, id.clone());
            id
        }
    }
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
        let mut headers = HeaderMap::new();
        let made = ensure(&mut headers);
        assert_eq!(made.len(), 32);
        assert_eq!(ensure(&mut headers), made);
        assert_eq!(headers[REQUEST_ID], made);
        assert_ne!(ensure(&mut HeaderMap::new()), made);
        for unfit in ["".to_owned(), "x".repeat(129)] {
            headers.insert(REQUEST_ID, unfit.parse().unwrap());
            assert_eq!(ensure(&mut headers).len(), 32);
        }
    }
}
