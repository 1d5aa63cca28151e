//! The two things that forges show.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where a report appears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Beside the commit.
    Status,
    /// Among the forge's own deployments.
    Deployment,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Status => "status",
            Kind::Deployment => "deployment",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind; only a damaged or foreign database holds one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a kind of report")]
pub struct UnknownKind(String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        match text {
            "status" => Ok(Kind::Status),
            "deployment" => Ok(Kind::Deployment),
            _ => Err(UnknownKind(text.to_owned())),
        }
    }
}
