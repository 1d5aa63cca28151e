//! Deployments, releases and apps as the API shows them. The shapes are fixed: other programs read
//! them.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use utoipa::ToSchema;

use crate::principal::Requester;

mod app;
mod deployment;
mod release;

pub use app::{AppView, HeldView, app, as_it_serves, lost_app, waits_for_engine};
pub use deployment::{DeploymentView, StepState, StepView, deployment, queued, shown};
pub use release::{ReleaseView, release};

/// Who made a request. The token, the user id and the forge are verified; the user's name is what the
/// forge or the pusher says.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Requester)]
pub struct RequesterView {
    pub kind: RequesterKind,
    /// The token's name.
    #[schema(required, example = "admin")]
    pub token: Option<String>,
    /// The user id on this machine.
    #[schema(required, example = 1000)]
    pub uid: Option<u32>,
    #[schema(required, example = "github")]
    pub forge: Option<String>,
    #[schema(required, example = "ada")]
    pub user: Option<String>,
    /// The address that the request came from; null if it was made on this machine.
    #[schema(required, example = "192.0.2.7")]
    pub from: Option<String>,
}

/// How the request arrived: with an API token, over the Unix socket, in a webhook, as `git push`
/// over HTTP, through `hooks/post-receive`, from the agent itself, or from somebody without a valid token.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RequesterKind {
    Token,
    Local,
    Webhook,
    GitHttp,
    GitHook,
    #[default]
    Agent,
    Stranger,
}

impl From<Requester> for RequesterView {
    fn from(who: Requester) -> Self {
        let from = who.address();
        let of = |kind| Self {
            kind,
            from: from.map(|from| from.to_string()),
            ..Self::default()
        };
        match who {
            Requester::Token { token, .. } => Self {
                token: Some(token),
                ..of(RequesterKind::Token)
            },
            Requester::Local { uid } => Self {
                uid: Some(uid),
                ..of(RequesterKind::Local)
            },
            Requester::Webhook { forge, user, .. } => Self {
                forge: Some(forge),
                user,
                ..of(RequesterKind::Webhook)
            },
            Requester::GitHttp { token, user, .. } => Self {
                token: Some(token),
                user,
                ..of(RequesterKind::GitHttp)
            },
            Requester::GitHook { uid } => Self {
                uid: Some(uid),
                ..of(RequesterKind::GitHook)
            },
            Requester::Agent => of(RequesterKind::Agent),
            Requester::Stranger { .. } => of(RequesterKind::Stranger),
        }
    }
}

/// All digits of the milliseconds, so that times sort as texts do.
const RFC_3339: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(RFC_3339).ok())
        .unwrap_or_default()
}
