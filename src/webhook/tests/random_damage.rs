//! Damaged deliveries: signed or not, each is either refused or read. `fuzz/` uses the same entry
//! points; here they run on random damage to good bodies, on any toolchain.

use std::collections::HashMap;

use crate::webhook::forge::tests::{SECRET, body, push_event, sent};
use crate::webhook::{Content, Forge, Refusal, forge, receive, signature};

const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";
/// How often each good delivery is damaged: 400 times, or as often as `CUTOVER_DAMAGE` says.
fn rounds() -> usize {
    let more = std::env::var("CUTOVER_DAMAGE").ok();
    more.and_then(|text| text.parse().ok()).unwrap_or(400)
}

/// xorshift: the same damage in every run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// Deletes, duplicates or overwrites bytes in one to three places.
    fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        const NOISE: [&[u8]; 14] = [
            b"\0",
            b"[",
            b"{",
            b"]",
            b"}",
            b"\"",
            b"null",
            b"-1",
            b"1e999",
            b"\\ud800",
            b"\xff",
            b"[[[[[[[[",
            b"true",
            b",",
        ];
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            let end = (at + self.below(12)).min(bytes.len());
            let new = match self.below(3) {
                0 => NOISE[self.below(NOISE.len())].to_vec(),
                1 => bytes[at..end].repeat(2),
                _ => vec![],
            };
            bytes.splice(at..end, new);
        }
        bytes
    }
}

fn good(forge: Forge) -> Vec<u8> {
    let body = body(forge, "refs/heads/main", Some(OLD), Some(NEW));
    body.to_string().into_bytes()
}

#[test]
fn damaged_bodies_are_malformed_or_read_and_never_a_panic() {
    let secrets = [SECRET.as_bytes().to_vec()];
    for forge in Forge::ALL {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut seen: HashMap<&str, usize> = HashMap::new();
        for _ in 0..rounds() {
            let body = random.damage(&good(forge));
            let headers = sent(forge, push_event(forge), &body);
            let kind = match receive(None, &secrets, &headers, &body) {
                Ok(received) => match received.content {
                    Content::Pushes(pushes) => {
                        assert!(!pushes.is_empty());
                        for push in pushes {
                            assert!(git2::Reference::is_valid_name(&push.git_ref.full()));
                            assert!(push.message.is_none_or(|m| m.len() <= 3 * 8192));
                        }
                        "pushes"
                    }
                    _ => "nothing",
                },
                Err(Refusal::Malformed(why)) => {
                    assert!(why.len() <= 800 && !why.contains('\n'), "{why}");
                    "malformed"
                }
                Err(Refusal::Unauthenticated) => panic!("{forge}: it was signed"),
            };
            *seen.entry(kind).or_default() += 1;
        }
        // Damage that is always or never detected would be a poor test.
        assert!(
            seen["malformed"] > 20 && seen["pushes"] > 5,
            "{forge}: {seen:?}"
        );
    }
}

#[test]
fn damaged_signatures_are_refused() {
    let secrets = [SECRET.as_bytes().to_vec()];
    for forge in [
        Forge::GitHub,
        Forge::Gitea,
        Forge::Bitbucket,
        Forge::Standard,
    ] {
        let mut random = Random(7);
        let body = good(forge);
        let whole = sent(forge, push_event(forge), &body);
        let signed = whole
            .keys()
            .find(|name| name.as_str().contains("signature"))
            .unwrap();
        for _ in 0..rounds() {
            let damaged = random.damage(whole[signed].as_bytes());
            let Ok(value) = http::HeaderValue::from_bytes(&damaged) else {
                continue;
            };
            let mut headers = whole.clone();
            headers.insert(signed, value);
            if damaged != whole[signed].as_bytes() {
                let answer = receive(Some(forge), &secrets, &headers, &body);
                // Doubled spaces or an additional, broken signature leave the good one of Standard
                // Webhooks intact.
                let still = forge == Forge::Standard
                    && damaged
                        .split(|b| *b == b' ')
                        .any(|s| s == whole[signed].as_bytes());
                if !still {
                    assert_eq!(answer, Err(Refusal::Unauthenticated), "{forge} {damaged:?}");
                }
            }
        }
    }
    for junk in [
        "",
        " ",
        "v1,",
        "v1,,",
        "\u{e9}",
        "sha256=é",
        &"a".repeat(100_000),
    ] {
        assert!(!signature::hex(&secrets, b"", junk));
        assert!(!signature::sha256(&secrets, b"", junk));
        assert!(!signature::basic(&secrets, junk));
    }
}

#[test]
fn what_every_forge_refuses() {
    let secrets = [SECRET.as_bytes().to_vec()];
    for forge in Forge::ALL {
        let good = String::from_utf8(good(forge)).unwrap();
        let doubled = match forge {
            Forge::Bitbucket | Forge::BitbucketDataCenter => {
                good.replacen("\"changes\":", "\"changes\":[],\"changes\":", 1)
            }
            Forge::Azure => {
                good.replacen("\"refUpdates\":", "\"refUpdates\":[],\"refUpdates\":", 1)
            }
            _ => good.replacen("\"ref\":", "\"ref\":\"refs/heads/x\",\"ref\":", 1),
        };
        let cases: [Vec<u8>; 14] = [
            b"".to_vec(),
            b"null".to_vec(),
            b"7".to_vec(),
            b"[]".to_vec(),
            b"{}".to_vec(),
            vec![b'['; 200_000],
            b"{\"ref\":".repeat(50_000),
            good[..good.len() - 1].into(),
            format!("{good}x").into(),
            doubled.into(),
            good.replace("refs/heads/main", "refs/heads/a..b")
                .replace("\"main\"", "\"a..b\"")
                .into(),
            good.replace("refs/heads/main", "refs/heads/a\\u0000b")
                .replace("\"main\"", "\"a\\u0000b\"")
                .into(),
            good.replace(NEW, "HEAD").into(),
            good.replace(NEW, "\\ud800").into(),
        ];
        for (i, body) in cases.iter().enumerate() {
            let headers = sent(forge, push_event(forge), body);
            let answer = receive(Some(forge), &secrets, &headers, body);
            assert!(
                matches!(answer, Err(Refusal::Malformed(_))),
                "{forge} case {i}: {answer:?}"
            );
        }
        // A very long text is truncated, not refused.
        let long = good.replace("Say hello", &"ü".repeat(1 << 16));
        let headers = sent(forge, push_event(forge), long.as_bytes());
        let Content::Pushes(pushes) = receive(None, &secrets, &headers, long.as_bytes())
            .unwrap()
            .content
        else {
            panic!("{forge}");
        };
        assert_eq!(pushes[0].message.as_ref().unwrap().len(), 8192);
        assert!(forge::read(forge, &http::HeaderMap::new(), b"").is_err());
    }
}
