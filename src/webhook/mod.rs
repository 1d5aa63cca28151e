//! A webhook request as it comes in: verified, then parsed. Nothing here touches a disk or a socket;
//! storing and answering is `api::hooks`'s work.

use http::HeaderMap;
use sha2::{Digest, Sha256};

mod forge;
mod push;
pub mod signature;

pub use forge::Forge;
pub use push::{Push, Ref};

/// A request whose sender knows a secret of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub forge: Forge,
    /// The forge's own word for what happened.
    pub event: String,
    /// The forge's own id of the request. Not signed: for people, never to be trusted.
    pub delivery: Option<String>,
    /// SHA-256 of the body, which is what the signature covers.
    pub body_hash: [u8; 32],
    pub content: Content,
}

/// What a request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The forge tries whether we are there.
    Ping,
    Pushes(Vec<Push>),
    /// Something else; the sentence says what.
    Ignored(String),
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No signature, a wrong one, one of an outdated kind, or no secret to check it with: the sender
    /// is told the same in each case.
    Unauthenticated,
    /// The body is not what the forge sends; the sentence says why.
    Malformed(String),
}

/// Checks the signature against every secret, and only then reads the body.
pub fn receive(secrets: &[Vec<u8>], headers: &HeaderMap, body: &[u8]) -> Result<Received, Refusal> {
    let forge = Forge::detect(headers).ok_or(Refusal::Unauthenticated)?;
    if !forge.is_signed(secrets, headers, body) {
        return Err(Refusal::Unauthenticated);
    }
    let (event, content) = forge.parse(headers, body)?;
    Ok(Received {
        forge,
        event,
        delivery: forge.delivery(headers),
        body_hash: Sha256::digest(body).into(),
        content,
    })
}

#[cfg(test)]
mod tests;
