//! What a GitHub App proves itself with.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;

/// The App's private key, as GitHub makes them.
pub const KEY: &str = include_str!("app.pem");
const PUBLIC: &str = include_str!("app.pub.pem");

/// Whether GitHub would take it: signed with RS256 by the App 4711, and for ten minutes at most.
pub fn check(token: &str) -> Result<(), String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else {
        return Err("a JWT has three parts".into());
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|e| e.to_string());
    let json = |part: &str| -> Result<Value, String> {
        serde_json::from_slice(&decode(part)?).map_err(|e| e.to_string())
    };
    let (head, claims_json) = (json(header)?, json(claims)?);
    if head["alg"] != "RS256" {
        return Err("the algorithm is not RS256".into());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = now.as_secs();
    let time = |name: &str| claims_json[name].as_u64().ok_or(format!("no `{name}`"));
    let (iat, exp) = (time("iat")?, time("exp")?);
    if iat > now || exp <= now || exp > now + 600 || exp - iat > 600 {
        return Err(format!("it is {now}, and the token is from {iat} to {exp}"));
    }
    if claims_json["iss"] != "4711" {
        return Err(format!("`iss` is {}", claims_json["iss"]));
    }
    let public: String = PUBLIC
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let public = STANDARD.decode(public).unwrap();
    let message = format!("{header}.{claims}");
    let signature = decode(signature)?;
    let provider = rustls::crypto::ring::default_provider();
    let mut known = provider.signature_verification_algorithms.all.iter();
    let good = known.any(|algorithm| {
        let checked = algorithm.verify_signature(&public, message.as_bytes(), &signature);
        checked.is_ok()
    });
    match good {
        true => Ok(()),
        false => Err("the signature is wrong".into()),
    }
}
