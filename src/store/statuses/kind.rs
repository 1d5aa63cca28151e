//! The two things that forges show.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where a report appears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusKind {
    /// Beside the commit.
    #[serde(rename = "status")]
    Commit,
    /// Among the forge's own deployments.
    Deployment,
}

impl StatusKind {
    pub fn as_str(self) -> &'static str {
        match self {
            StatusKind::Commit => "status",
            StatusKind::Deployment => "deployment",
        }
    }
}

impl fmt::Display for StatusKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no kind; only a damaged or foreign database holds one.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a kind of report")]
pub struct UnknownStatusKind(String);

impl FromStr for StatusKind {
    type Err = UnknownStatusKind;

    fn from_str(text: &str) -> Result<Self, UnknownStatusKind> {
        match text {
            "status" => Ok(StatusKind::Commit),
            "deployment" => Ok(StatusKind::Deployment),
            _ => Err(UnknownStatusKind(text.to_owned())),
        }
    }
}
