//! Any body, to every forge's parser. The first byte says which forge, so that one body is looked at
//! by one. GitLab's plain token and Azure's password cover headers alone, so those two can be signed
//! for any body and go the whole way.
#![no_main]

use cutover_fuzz::webhook::{Content, Forge, receive};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((first, body)) = input.split_first() else {
        return;
    };
    let forge = Forge::ALL[usize::from(*first) % Forge::ALL.len()];
    if let Ok(Content::Pushes(pushes)) = forge.parse(body) {
        assert!(!pushes.is_empty());
        for push in pushes {
            assert!(git2::Reference::is_valid_name(&push.git_ref.full()));
            assert!(push.message.is_none_or(|message| message.len() <= 3 * 8192));
        }
    }
    let mut headers = HeaderMap::new();
    for (name, value) in match forge {
        Forge::GitLab => [("x-gitlab-event", "Push Hook"), ("x-gitlab-token", "x")],
        Forge::Azure => [("x-vss-activityid", "x"), ("authorization", "Basic Ong=")],
        _ => return,
    } {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for kind in ["application/json", "application/x-www-form-urlencoded"] {
        headers.insert("content-type", HeaderValue::from_static(kind));
        let _ = receive(Some(forge), &[b"x".to_vec()], &headers, body);
    }
});
