//! The two kinds of status that forges show.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Where a status appears.
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

/// Text that is not a kind: the database is damaged, or was not written by Cutover.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a kind of status")]
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
