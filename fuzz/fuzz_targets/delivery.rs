//! Any body, to the parser of the forge that `CUTOVER_FUZZ_FORGE` names. GitLab's plain token and
//! Azure's password cover headers alone, so those two can be signed for any body and go the whole way.
#![no_main]

use std::sync::LazyLock;

use cutover_fuzz::webhook::{Content, Forge, receive};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

static FORGE: LazyLock<Forge> = LazyLock::new(|| {
    let name = std::env::var("CUTOVER_FUZZ_FORGE").unwrap_or_default();
    let forge = name.parse();
    forge.expect("`CUTOVER_FUZZ_FORGE` is a forge's name, as in deploy.toml")
});

fuzz_target!(|body: &[u8]| {
    let forge = *FORGE;
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
