//! The forges: one file for each kind of payload, all without I/O.

mod azure;
mod bitbucket;
mod data_center;
mod gitea;
mod github;
mod gitlab;
mod standard;

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use http::HeaderMap;
use serde::Serialize;

use super::{Content, Push, Ref, Refusal, header, payload, signature};

/// The sender of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Forge {
    Forgejo,
    Gitea,
    Gogs,
    #[serde(rename = "github")]
    GitHub,
    #[serde(rename = "gitlab")]
    GitLab,
    Bitbucket,
    BitbucketDataCenter,
    Azure,
    /// Any sender that signs according to <https://www.standardwebhooks.com>.
    Standard,
}

impl Forge {
    /// In the order of detection: Forgejo sends Gitea's headers too, and both send GitHub's.
    pub const ALL: [Forge; 9] = [
        Forge::Forgejo,
        Forge::Gitea,
        Forge::Gogs,
        Forge::GitHub,
        Forge::GitLab,
        Forge::Bitbucket,
        Forge::BitbucketDataCenter,
        Forge::Azure,
        Forge::Standard,
    ];

    /// The name used in deploy.toml.
    pub fn name(self) -> &'static str {
        match self {
            Forge::Forgejo => "forgejo",
            Forge::Gitea => "gitea",
            Forge::Gogs => "gogs",
            Forge::GitHub => "github",
            Forge::GitLab => "gitlab",
            Forge::Bitbucket => "bitbucket",
            Forge::BitbucketDataCenter => "bitbucket-data-center",
            Forge::Azure => "azure",
            Forge::Standard => "standard",
        }
    }

    /// Detected from the request headers. Decides only how the delivery must be signed.
    pub fn detect(headers: &HeaderMap) -> Option<Self> {
        let has = |name: &str| headers.contains_key(name);
        Self::ALL.into_iter().find(|forge| match forge {
            Forge::Forgejo => has("x-forgejo-event"),
            Forge::Gitea => has("x-gitea-event"),
            Forge::Gogs => has("x-gogs-event"),
            Forge::GitHub => has("x-github-event"),
            Forge::GitLab => has("x-gitlab-event"),
            Forge::Bitbucket => has("x-hook-uuid"),
            Forge::BitbucketDataCenter => has("x-event-key"),
            // Such a sender may also carry headers by which it authenticates to a proxy in front.
            Forge::Azure => has("authorization") && !has("webhook-signature"),
            Forge::Standard => has("webhook-signature"),
        })
    }

    /// The header with the forge's own id of a delivery.
    pub(super) fn delivery_header(self) -> &'static str {
        match self {
            Forge::Forgejo => "x-forgejo-delivery",
            Forge::Gitea => "x-gitea-delivery",
            Forge::Gogs => "x-gogs-delivery",
            Forge::GitHub => "x-github-delivery",
            Forge::GitLab => "x-gitlab-event-uuid",
            Forge::Bitbucket => "x-request-uuid",
            Forge::BitbucketDataCenter => "x-request-id",
            Forge::Azure => "x-vss-activityid",
            Forge::Standard => "webhook-id",
        }
    }

    /// The id of a delivery, if the verified signature covers it.
    pub(super) fn signed_id(self, headers: &HeaderMap) -> Option<&str> {
        let signed = match self {
            Forge::Standard => true,
            Forge::GitLab => standard::present(headers),
            _ => false,
        };
        signed.then(|| header::one(headers, "webhook-id")).flatten()
    }

    /// Parses a push of this forge without verifying its sender, for fuzzing. Deliveries go
    /// through [`super::receive`].
    #[doc(hidden)]
    pub fn parse(self, json: &[u8]) -> Result<Content, Refusal> {
        match self {
            Forge::GitHub => github::push(json),
            Forge::Forgejo | Forge::Gitea | Forge::Gogs => gitea::push(json),
            Forge::GitLab => gitlab::push(json),
            Forge::Bitbucket => bitbucket::push(json),
            Forge::BitbucketDataCenter => data_center::push(json),
            Forge::Azure => azure::push(json),
            Forge::Standard => standard::push(json),
        }
    }

    fn event_header(self) -> Option<&'static str> {
        Some(match self {
            Forge::Forgejo => "x-forgejo-event",
            Forge::Gitea => "x-gitea-event",
            Forge::Gogs => "x-gogs-event",
            Forge::GitHub => "x-github-event",
            Forge::GitLab => "x-gitlab-event",
            Forge::Bitbucket | Forge::BitbucketDataCenter => "x-event-key",
            Forge::Azure | Forge::Standard => return None,
        })
    }

    /// Whether the delivery proves, in this forge's way, that its sender knows one of the secrets.
    pub(super) fn signed(
        self,
        now: SystemTime,
        secrets: &[Vec<u8>],
        headers: &HeaderMap,
        body: &[u8],
    ) -> bool {
        let one = |name| header::one(headers, name);
        match self {
            Forge::Forgejo => {
                gitea::signed(secrets, headers, "x-forgejo-signature", body)
                    || gitea::signed(secrets, headers, "x-gitea-signature", body)
            }
            Forge::Gitea => gitea::signed(secrets, headers, "x-gitea-signature", body),
            Forge::Gogs => gitea::signed(secrets, headers, "x-gogs-signature", body),
            Forge::GitHub => one("x-hub-signature-256")
                .is_some_and(|given| signature::sha256(secrets, body, given)),
            Forge::GitLab => gitlab::signed(now, secrets, headers, body),
            Forge::Bitbucket | Forge::BitbucketDataCenter => {
                one("x-hub-signature").is_some_and(|given| signature::sha256(secrets, body, given))
            }
            Forge::Azure => {
                one("authorization").is_some_and(|given| signature::basic(secrets, given))
            }
            Forge::Standard => standard::signed(now, secrets, headers, body),
        }
    }
}

impl fmt::Display for Forge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of a forge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a forge")]
pub struct UnknownForge;

impl FromStr for Forge {
    type Err = UnknownForge;

    fn from_str(name: &str) -> Result<Self, UnknownForge> {
        let mut all = Self::ALL.into_iter();
        all.find(|forge| forge.name() == name).ok_or(UnknownForge)
    }
}

/// The event's name, and the content of a signed delivery.
pub(super) fn read(
    forge: Forge,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(String, Content), Refusal> {
    let event = match forge.event_header() {
        None => None,
        Some(name) => Some(header::short(headers, name).ok_or_else(|| {
            let fault = header::fault(headers, name);
            Refusal::malformed(&format!(
                "the header `{name}`, which names the event, {fault}"
            ))
        })?),
    };
    let json = payload::json(headers, body)?;
    let json: &[u8] = &json;
    let event = match event {
        Some(event) => event,
        None if forge == Forge::Azure => azure::event(json)?,
        None => standard::event(json)?,
    };
    let content = match (forge, event.as_str()) {
        (Forge::GitHub, "ping") => ping(json)?,
        (Forge::BitbucketDataCenter, "diagnostics:ping") => ping(json)?,
        (Forge::Standard, "ping") => ping(json)?,
        (Forge::GitHub | Forge::Forgejo | Forge::Gitea | Forge::Gogs | Forge::Standard, "push")
        | (Forge::GitLab, "Push Hook" | "Tag Push Hook" | "System Hook")
        | (Forge::Bitbucket, "repo:push")
        | (Forge::BitbucketDataCenter, "repo:refs_changed")
        | (Forge::Azure, "git.push") => forge.parse(json)?,
        (_, event) => {
            payload::read::<serde::de::IgnoredAny>(json)?;
            Content::Ignored(format!("the event `{event}` does not deploy anything"))
        }
    };
    Ok((event, content))
}

/// A ping's body is not used, but it must be JSON.
fn ping(json: &[u8]) -> Result<Content, Refusal> {
    payload::read::<serde::de::IgnoredAny>(json)?;
    Ok(Content::Ping)
}

/// The pushes to branches and tags; other refs are ignored.
fn content(pushes: Vec<Option<Push>>) -> Content {
    let pushes: Vec<Push> = pushes.into_iter().flatten().collect();
    match pushes.is_empty() {
        true => Content::Ignored("neither a branch nor a tag was pushed".into()),
        false => Content::Pushes(pushes),
    }
}

#[cfg(test)]
pub(super) mod tests;
