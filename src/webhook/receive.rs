//! One delivery: which forge sent it, whether it is signed, and what it says.

use std::time::SystemTime;

use http::HeaderMap;
use sha2::{Digest, Sha256};

use super::{Content, Forge, Refusal, forge, header};

/// A delivery that was signed with one of the app's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub forge: Forge,
    /// The forge's own name for the event, e.g. `push`.
    pub event: String,
    /// The forge's own id of this delivery. Most forges do not sign it: anybody can repeat a
    /// delivery with another id, so it does not identify a delivery by itself.
    pub delivery: Option<String>,
    /// SHA-256 of the whole body, and of the id if that is signed too: two deliveries with the same
    /// body but different signed ids are distinct.
    pub body_hash: [u8; 32],
    pub content: Content,
}

/// Verifies the signature, and only then parses the body. `forge` is the one that deploy.toml names;
/// otherwise it is detected. `secrets` are the app's, just read; without any, every delivery is refused.
pub fn receive(
    forge: Option<Forge>,
    secrets: &[Vec<u8>],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Received, Refusal> {
    receive_at(SystemTime::now(), forge, secrets, headers, body)
}

pub(super) fn receive_at(
    now: SystemTime,
    forge: Option<Forge>,
    secrets: &[Vec<u8>],
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Received, Refusal> {
    let forge = forge
        .or_else(|| Forge::detect(headers))
        .ok_or(Refusal::Unauthenticated)?;
    if !forge.signed(now, secrets, headers, body) {
        return Err(Refusal::Unauthenticated);
    }
    let (event, content) = forge::read(forge, headers, body)?;
    Ok(Received {
        forge,
        event,
        delivery: header::short(headers, forge.delivery_header()),
        body_hash: hash(forge.signed_id(headers), body),
        content,
    })
}

fn hash(id: Option<&str>, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    if let Some(id) = id {
        hash.update(id);
        // No id contains a newline, so nothing can be shifted between the id and the body.
        hash.update(b"\n");
    }
    hash.update(body);
    hash.finalize().into()
}
