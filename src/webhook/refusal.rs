//! Why a delivery is not accepted, and with which status.

/// Why a delivery is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// 401, the same for a signature that is wrong, missing or of a refused kind.
    #[error("the delivery is not signed with this app's secret")]
    Unauthenticated,
    /// 400: signed, but not what the forge sends.
    #[error("{0}")]
    Malformed(String),
}

impl Refusal {
    /// Payloads can put any text into a parser's message, so it is cut and cleaned.
    pub(super) fn malformed(text: &str) -> Self {
        let clean = text.chars().filter(|c| !c.is_control()).take(200);
        Self::Malformed(clean.collect())
    }
}
