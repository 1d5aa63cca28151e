//! HMAC-SHA256 over the raw body.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Whether `signature`, in hex, is that of `body` under one of `secrets`. Every secret is tried,
/// whichever fits, and the comparison takes the same time wherever it differs. No secrets, or an
/// empty one, fit nothing.
pub fn is_valid(secrets: &[Vec<u8>], signature: &str, body: &[u8]) -> bool {
    let Ok(signature) = hex::decode(signature) else {
        return false;
    };
    secrets
        .iter()
        .filter(|secret| !secret.is_empty())
        .fold(false, |valid, secret| {
            let fits = Hmac::<Sha256>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(body).verify_slice(&signature).is_ok());
            valid | fits
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of GitHub's documentation of webhooks.
    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNATURE: &str = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    #[test]
    fn any_of_several_secrets_fits() {
        for secrets in [
            vec![SECRET.to_vec()],
            vec![b"old".to_vec(), SECRET.to_vec()],
            vec![SECRET.to_vec(), b"new".to_vec()],
        ] {
            assert!(is_valid(&secrets, SIGNATURE, BODY));
        }
    }

    #[test]
    fn nothing_else_does() {
        let good = vec![SECRET.to_vec()];
        assert!(!is_valid(&[], SIGNATURE, BODY));
        assert!(!is_valid(&[vec![]], SIGNATURE, BODY));
        assert!(!is_valid(&[b"other".to_vec()], SIGNATURE, BODY));
        assert!(!is_valid(&good, SIGNATURE, b"Hello, World"));
        for signature in ["", "00", "zz", &SIGNATURE[..62], &format!("{SIGNATURE}00")] {
            assert!(!is_valid(&good, signature, BODY), "{signature}");
        }
    }
}
