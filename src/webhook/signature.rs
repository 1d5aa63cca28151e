//! Proofs that a delivery comes from someone who knows the app's secret. All compare in constant
//! time, try every secret, and answer only yes or no.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// How far a signed timestamp may be from the current time, in seconds, in either direction.
const TOLERANCE: u64 = 5 * 60;

fn mac(secret: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

/// Whether any secret passes. All are tried, so that the time does not reveal which one; an empty
/// secret never passes.
fn any(secrets: &[Vec<u8>], passes: impl Fn(&[u8]) -> Choice) -> bool {
    let mut passed = Choice::from(0);
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        passed |= passes(secret);
    }
    passed.into()
}

/// `signature` is the body's HMAC-SHA256 in hex, without a prefix.
pub fn hex(secrets: &[Vec<u8>], body: &[u8], signature: &str) -> bool {
    let mut given = [0u8; 32];
    hex::decode_to_slice(signature, &mut given).is_ok()
        && any(secrets, |secret| mac(secret, &[body]).ct_eq(&given))
}

/// `sha256=` followed by the hex.
pub fn sha256(secrets: &[Vec<u8>], body: &[u8], signature: &str) -> bool {
    signature
        .strip_prefix("sha256=")
        .is_some_and(|signature| hex(secrets, body, signature))
}

/// `given` is one of the secrets itself. Digests are compared, so that the length is not revealed.
pub fn token(secrets: &[Vec<u8>], given: &[u8]) -> bool {
    let given = Sha256::digest(given);
    any(secrets, |secret| Sha256::digest(secret).ct_eq(&given))
}

/// HTTP Basic: one of the secrets is the password, or `user:password`.
pub fn basic(secrets: &[Vec<u8>], authorization: &str) -> bool {
    let Some((scheme, given)) = authorization.split_once(' ') else {
        return false;
    };
    let Ok(given) = STANDARD.decode(given.trim()) else {
        return false;
    };
    let Some(colon) = given.iter().position(|b| *b == b':') else {
        return false;
    };
    // Both are computed, whichever of them matches.
    let password = token(secrets, &given[colon + 1..]);
    let whole = token(secrets, &given);
    scheme.eq_ignore_ascii_case("basic") && (password | whole)
}

/// Standard Webhooks: `v1,` and base64 of the HMAC over `id.timestamp.body`, several signatures
/// separated by spaces. A secret `whsec_…` is base64 after its prefix; any other is taken as it is.
pub fn standard(
    secrets: &[Vec<u8>],
    (id, timestamp, signatures): (&str, &str, &str),
    body: &[u8],
    now: SystemTime,
) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let digits = !timestamp.is_empty() && timestamp.bytes().all(|b| b.is_ascii_digit());
    let Some(at) = timestamp.parse::<u64>().ok().filter(|_| digits) else {
        return false;
    };
    if id.is_empty() || now.abs_diff(at) > TOLERANCE {
        return false;
    }
    let keys: Vec<Vec<u8>> = secrets.iter().filter_map(|secret| key(secret)).collect();
    let given: Vec<[u8; 32]> = signatures
        .split(' ')
        .filter_map(|signature| {
            STANDARD
                .decode(signature.strip_prefix("v1,")?)
                .ok()?
                .try_into()
                .ok()
        })
        // More than anybody needs while rotating; each costs a comparison.
        .take(16)
        .collect();
    any(&keys, |key| {
        let mac = mac(
            key,
            &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body],
        );
        let mut passed = Choice::from(0);
        for given in &given {
            passed |= mac.ct_eq(given);
        }
        passed
    })
}

/// The signature of what we send as Standard Webhooks; `None` if the secret begins with `whsec_` and is
/// not base64 after it.
pub fn sign_standard(secret: &[u8], id: &str, timestamp: &str, body: &[u8]) -> Option<[u8; 32]> {
    let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body];
    key(secret).map(|key| mac(&key, &parts))
}

fn key(secret: &[u8]) -> Option<Vec<u8>> {
    match secret.strip_prefix(b"whsec_") {
        Some(encoded) => STANDARD.decode(encoded).ok(),
        None => Some(secret.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &[u8] = b"It's a Secret to Everybody";

    fn secrets(all: &[&[u8]]) -> Vec<Vec<u8>> {
        all.iter().map(|secret| secret.to_vec()).collect()
    }

    #[test]
    fn githubs_and_bitbuckets_own_vectors_hold() {
        let github = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let bitbucket = "sha256=a4771c39fbe90f317c7824e83ddef3caae9cb3d976c214ace1f2937e133263c9";
        let one = secrets(&[SECRET]);
        assert!(sha256(&one, b"Hello, World!", github));
        assert!(sha256(&one, b"Hello World!", bitbucket));
        assert!(sha256(
            &secrets(&[b"old", SECRET]),
            b"Hello, World!",
            github
        ));
        assert!(!sha256(&one, b"Hello, World?", github));
        assert!(!sha256(&secrets(&[b"wrong"]), b"Hello, World!", github));
        assert!(!sha256(&[], b"Hello, World!", github));
        assert!(hex(&one, b"Hello, World!", &github[7..]));
        for bad in [
            "",
            "sha256=",
            &github[7..],
            &github[..70],
            "sha1=0000",
            &format!("{github}00"),
        ] {
            assert!(!sha256(&one, b"Hello, World!", bad), "{bad}");
        }
    }

    #[test]
    fn an_empty_secret_passes_nothing() {
        let empty = secrets(&[b""]);
        let signature = hex::encode(mac(b"", &[b"body"]));
        assert!(!hex(&empty, b"body", &signature));
        assert!(!token(&empty, b""));
        assert!(!basic(&empty, "Basic Og=="));
    }

    #[test]
    fn a_plain_token_and_basic_are_compared_whole() {
        let two = secrets(&[b"old", b"new"]);
        assert!(token(&two, b"old") && token(&two, b"new"));
        assert!(!token(&two, b"ne") && !token(&two, b"newer") && !token(&two, b""));
        let header = |text: &str| format!("Basic {}", STANDARD.encode(text));
        assert!(basic(&two, &header("anybody:new")));
        assert!(basic(&two, &header(":old")));
        assert!(basic(&secrets(&[b"me:pw:x"]), &header("me:pw:x")));
        for bad in [
            "",
            "Basic",
            "Basic ",
            "Basic !!!",
            &header("new"),
            &header("new:"),
            "Bearer new",
        ] {
            assert!(!basic(&two, bad), "{bad}");
        }
    }

    #[test]
    fn the_standards_own_vector_holds_for_five_minutes() {
        let key = secrets(&[b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]);
        let good = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let body = br#"{"test": 2432232314}"#;
        let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
        let check = |signature: &str, now| {
            let parts = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", signature);
            standard(&key, parts, body, at(now))
        };
        for now in [1614265330, 1614265330 + 300, 1614265330 - 300] {
            assert!(check(good, now), "{now}");
        }
        assert!(!check(good, 1614265330 + 301) && !check(good, 1614265330 - 301));
        assert!(check(&format!("v1a,xyz v2,abc v1,AAAA {good}"), 1614265330));
        for bad in ["", "v1,", &good[3..], "v1,AAAA", &good.replace("v1", "v2")] {
            assert!(!check(bad, 1614265330), "{bad}");
        }
        let now = at(1614265330);
        for (id, timestamp) in [
            ("x", "1614265330"),
            ("", "1614265330"),
            ("x", ""),
            ("x", "-1"),
            ("x", "+1614265330"),
        ] {
            assert!(!standard(&key, (id, timestamp, good), body, now));
        }
    }
}
