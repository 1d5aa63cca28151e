//! Any body, to every forge's parser. GitLab's plain token and Azure's password cover headers alone,
//! so those two can be signed for any body; the others are refused or, by chance, read.
//!
//! `cargo +nightly fuzz run delivery -- -max_total_time=60`
#![no_main]

use cutover::webhook::{Forge, receive};
use http::HeaderMap;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let secrets = [b"x".to_vec()];
    for forge in Forge::ALL {
        let _ = forge.parse(body);
    }
    let mut headers = HeaderMap::new();
    headers.insert("x-gitlab-event", http::HeaderValue::from_static("Push Hook"));
    headers.insert("x-gitlab-token", http::HeaderValue::from_static("x"));
    let _ = receive(None, &secrets, &headers, body);
});
