//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Message, Sent};
use crate::webhook::signature;

pub fn request(message: &Message, url: &str, secret: &str, now: i64) -> Result<Sent, String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(message.at) * 1_000_000);
    let at = at.ok().and_then(|at| at.format(&Rfc3339).ok());
    let body = json!({ "type": message.kind, "timestamp": at, "data": message.data }).to_string();
    let timestamp = now.to_string();
    let mac = signature::sign_standard(secret.as_bytes(), &message.id, &timestamp, body.as_bytes());
    let mac = mac.ok_or("the secret begins with `whsec_` and is not base64 after it")?;
    Ok(Sent {
        url: url.to_owned(),
        headers: vec![
            ("content-type", "application/json".into()),
            ("webhook-id", message.id.clone()),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", format!("v1,{}", STANDARD.encode(mac))),
        ],
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn it_is_signed_as_the_standard_says() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let sent = request(&super::super::example(), "u", secret, 1_700_000_000).unwrap();
        let header = |name: &str| {
            let found = sent.headers.iter().find(|(key, _)| *key == name);
            found.unwrap().1.as_str()
        };
        let parts = (
            header("webhook-id"),
            header("webhook-timestamp"),
            header("webhook-signature"),
        );
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let secrets = [secret.as_bytes().to_vec()];
        assert!(signature::standard(
            &secrets,
            parts,
            sent.body.as_bytes(),
            now
        ));
        assert!(
            sent.body.contains("\"timestamp\":\"1970-01-01T00:00:01Z\""),
            "{}",
            sent.body
        );
        assert!(request(&super::super::example(), "u", "whsec_%", 0).is_err());
    }
}
