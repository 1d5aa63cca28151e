//! Who makes a request, and what they may do. Each door (the API, the socket, git, a webhook)
//! identifies the principal; every change records it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::AppName;

/// Who is behind one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    pub who: Requester,
    pub apps: Scope,
    pub role: Role,
}

/// What a principal may do. Each role includes the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// View apps, deployments, logs and repositories.
    Read,
    /// Deploy, roll back, cancel and push.
    Deploy,
    /// Everything.
    Admin,
}

/// The apps that a principal may see and change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    All,
    Apps(Vec<AppName>),
}

impl Principal {
    pub fn admin(who: Requester) -> Self {
        Self {
            who,
            apps: Scope::All,
            role: Role::Admin,
        }
    }

    pub fn sees(&self, app: &AppName) -> bool {
        match &self.apps {
            Scope::All => true,
            Scope::Apps(apps) => apps.contains(app),
        }
    }

    pub fn may(&self, role: Role) -> bool {
        self.role >= role
    }
}

/// Who requested a deployment, as stored in the database and shown by the API. Names given by a forge
/// or a pusher are not verified; the token, the uid and the signature are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Requester {
    /// An API token, by its name.
    Token {
        token: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
    },
    /// A process on this machine, over the agent's socket.
    Local { uid: u32 },
    /// A signed delivery, with the account that pushed, if the forge names it.
    Webhook {
        forge: String,
        user: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
    },
    /// `git push` over HTTP: the token and the user name sent with it.
    GitHttp {
        token: String,
        user: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<IpAddr>,
    },
    /// `hooks/post-receive`, run as this user: a push over SSH or to a local path.
    GitHook { uid: u32 },
    /// The agent itself, rolling back a release that fails its bake.
    Agent,
    /// Somebody without a token that is accepted.
    Stranger { from: Option<IpAddr> },
}

impl Requester {
    /// The same, at this address.
    pub fn at(mut self, address: Option<IpAddr>) -> Self {
        match &mut self {
            Self::Token { from, .. }
            | Self::Webhook { from, .. }
            | Self::GitHttp { from, .. }
            | Self::Stranger { from } => *from = address,
            Self::Local { .. } | Self::GitHook { .. } | Self::Agent => {}
        }
        self
    }

    /// The address that the request came from; `None` if it was made on this machine, or before this was
    /// recorded.
    pub fn address(&self) -> Option<IpAddr> {
        match self {
            Self::Token { from, .. }
            | Self::Webhook { from, .. }
            | Self::GitHttp { from, .. }
            | Self::Stranger { from } => *from,
            Self::Local { .. } | Self::GitHook { .. } | Self::Agent => None,
        }
    }

    /// Whether both are the same, wherever each of them is.
    pub fn is_same(&self, other: &Self) -> bool {
        self.clone().at(None) == other.clone().at(None)
    }
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { token, .. } => write!(f, "token `{token}`"),
            Self::Local { uid } => write!(f, "local user (uid {uid})"),
            Self::Webhook { forge, user, .. } => match user {
                Some(user) => write!(f, "{user}, webhook from {forge}"),
                None => write!(f, "webhook from {forge}"),
            },
            Self::GitHttp { token, user, .. } => match user {
                Some(user) => write!(f, "{user}, git over HTTP with token `{token}`"),
                None => write!(f, "git over HTTP with token `{token}`"),
            },
            Self::GitHook { uid } => write!(f, "git push on this machine (uid {uid})"),
            Self::Agent => f.write_str("Cutover"),
            Self::Stranger { .. } => f.write_str("somebody without a valid token"),
        }
    }
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
        }
    }
}

/// Why a text is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role: expected `read`, `deploy` or `admin`")]
pub struct InvalidRole(String);

impl FromStr for Role {
    type Err = InvalidRole;

    fn from_str(text: &str) -> Result<Self, InvalidRole> {
        [Self::Read, Self::Deploy, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| InvalidRole(text.escape_debug().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_do_what_the_lower_ones_may_and_only_in_its_apps() {
        let app: AppName = "hello".parse().unwrap();
        let token = Requester::Token {
            token: "ci".to_owned(),
            from: None,
        };
        let principal = Principal {
            who: token,
            apps: Scope::Apps(vec![app.clone()]),
            role: Role::Deploy,
        };
        let may = [Role::Read, Role::Deploy, Role::Admin].map(|role| principal.may(role));
        assert_eq!(may, [true, true, false]);
        assert!(principal.sees(&app) && !principal.sees(&"other".parse().unwrap()));
    }

    #[test]
    fn what_is_stored_is_read_again() {
        let user = Some("ann".to_owned());
        for (who, json) in [
            (Requester::Agent, r#"{"kind":"agent"}"#),
            (
                Requester::GitHook { uid: 7 },
                r#"{"kind":"git-hook","uid":7}"#,
            ),
            (
                Requester::Webhook {
                    forge: "github".into(),
                    user,
                    from: None,
                },
                r#"{"kind":"webhook","forge":"github","user":"ann"}"#,
            ),
            (
                Requester::Stranger { from: None }.at("192.0.2.1".parse().ok()),
                r#"{"kind":"stranger","from":"192.0.2.1"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&who).unwrap(), json);
            assert_eq!(serde_json::from_str::<Requester>(json).unwrap(), who);
        }
    }
}
