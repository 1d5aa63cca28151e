//! Why a delivery is refused, and with which status.

use crate::printable::is_obeyed;

/// Why a delivery is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 401, the same for a signature that is wrong, missing or of an unsupported kind.
    #[error("the delivery is not signed with this app's secret")]
    Unauthenticated,
    /// 400: signed, but not a payload of this forge.
    #[error("{0}")]
    Malformed(String),
}

impl Refusal {
    /// A payload can put any text into a parser's message, so it is truncated and sanitized.
    pub(super) fn malformed(text: &str) -> Self {
        let clean = text.chars().filter(|c| !is_obeyed(*c)).take(200);
        Self::Malformed(clean.collect())
    }
}
