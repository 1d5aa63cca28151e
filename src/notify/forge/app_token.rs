//! A GitHub App's proof of who it is: a JWT, signed with its private key.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::SignatureScheme;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;

/// GitHub's advice against clocks that differ.
const EARLIER: u64 = 60;
/// GitHub takes ten minutes at most.
const LATER: u64 = 9 * 60;

/// The token of the App `id` (its client id or its number), valid for nine minutes. An error is a
/// sentence that does not quote the key.
pub fn sign(id: &str, private_key: &[u8], now: SystemTime) -> Result<String, String> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let header = json!({ "alg": "RS256", "typ": "JWT" });
    let claims = json!({ "iat": now.saturating_sub(EARLIER), "exp": now + LATER, "iss": id });
    let encode = |part: &serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", encode(&header), encode(&claims));
    let unusable = |why: &str| format!("the GitHub App's private key cannot be used: {why}");
    let key = PrivateKeyDer::from_pem_slice(private_key)
        .map_err(|_| unusable("it is no PEM file, as GitHub makes it"))?;
    let key = any_supported_type(&key).map_err(|error| unusable(&error.to_string()))?;
    let signer = key
        .choose_scheme(&[SignatureScheme::RSA_PKCS1_SHA256])
        .ok_or_else(|| unusable("it is no RSA key"))?;
    let signature = signer.sign(message.as_bytes());
    let signature = signature.map_err(|error| unusable(&error.to_string()))?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_kind_is_refused_and_not_quoted() {
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let secret = other.lines().nth(1).unwrap().to_owned();
        for (key, expected) in [
            (other, "it is no RSA key"),
            ("hunter2".into(), "it is no PEM file"),
            (String::new(), "it is no PEM file"),
        ] {
            let error = sign("7", key.as_bytes(), SystemTime::now()).unwrap_err();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains(&secret) && !error.contains("hunter2"));
        }
    }
}
