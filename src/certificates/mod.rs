//! Certificates from an authority that speaks ACME (RFC 8555). The agent orders and renews them; the
//! proxy serves them from their files, and answers the authority's challenges from files too.
//!
//! In `data_dir/acme`, closed to other users: `account-….json`, one for each authority;
//! `certificates/NAME.pem`, a private key and its chain; `pending/NAME.key`, the key of a certificate
//! that has been asked for; `challenges/`, the answers.

pub mod account;
mod challenge;
pub mod files;
mod http;
pub mod leaf;
pub mod names;
pub mod order;
pub mod renewal;
pub mod schedule;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The authority cannot be reached, or cannot answer now. Nothing was refused.
    #[error("{0}")]
    Away(String),
    /// The authority asks not to be asked again for so long.
    #[error("{why}")]
    Wait {
        why: String,
        pause: std::time::Duration,
    },
    /// The authority has lost the account: a new one is made.
    #[error("the authority does not know the account")]
    NoAccount,
    #[error("{0}")]
    Refused(String),
}
