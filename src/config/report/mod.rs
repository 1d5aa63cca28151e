//! `[apps.NAME.report]`: the forge that deployments are reported to. Whatever the repository's
//! address reveals need not be configured.

use toml::de::DeValue;
use url::Url;

use super::file::{Node, Section};
use super::values::secret;
use super::{App, Repo, Secret};
use crate::webhook;

mod address;
mod api;
mod remote;

#[cfg(test)]
pub(crate) use address::tests::address;
pub use address::{Asked, ForgeAddress, Missing, encoded};
pub use api::ForgeApi;

/// The forge to report deployments to: `[apps.NAME.report]`.
#[derive(Debug, Clone)]
pub struct Report {
    pub address: ForgeAddress,
    /// The environment's name at the forge.
    pub environment: String,
    /// Whether deployments are also recorded as the forge's own, if it has such; otherwise only
    /// commit statuses are sent.
    pub deployments: bool,
    pub auth: Auth,
}

/// How Cutover authenticates to the forge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    Token(Secret),
    App(GitHubApp),
}

/// A GitHub App that is installed on the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitHubApp {
    /// Its client id, or its numeric id.
    pub id: String,
    pub private_key: Secret,
    /// The id of the installation. Absent: looked up at GitHub.
    pub installation: Option<u64>,
}

impl App {
    /// The forge that has the repository, as far as the configuration or the repository's address tells.
    pub fn forge(&self) -> Option<ForgeAddress> {
        if let Some(report) = &self.report {
            return Some(report.address.clone());
        }
        let asked = Asked {
            forge: self.webhook.forge,
            ..Asked::default()
        };
        ForgeAddress::find(&self.repo, &asked).ok()
    }
}

/// Reads the section. `shown` is the app's name as written in the file, `sender` the forge of its
/// webhook.
pub(super) fn report(
    node: Node<'_>,
    shown: &str,
    repo: Option<&Repo>,
    sender: Option<webhook::Forge>,
) -> Option<Report> {
    let mut section = node.section();
    let token = section.read("token", secret);
    let named = section.node("forge");
    let forge = named.as_ref().map(forge);
    let url = section.read("url", url);
    let repository = section.read("repository", repository);
    let environment = section.read("environment", environment);
    let deployments = section.read("deployments", |node| node.boolean());
    let app_id = section.read("app_id", app_id);
    let private_key = section.read("private_key", secret);
    let installation = section.read("installation_id", |node| node.integer(1, u32::MAX.into()));
    let asked = Asked {
        // If the webhook's forge accepts no statuses, it does not tell where to send them.
        forge: match forge {
            Some(named) => named,
            None => sender.filter(|sender| ForgeApi::of(*sender).is_some()),
        },
        url: url.as_ref(),
        repository,
    };
    let address = match repo {
        Some(repo) if forge != Some(None) => found(&section, repo, &asked),
        _ => None,
    };
    one_proof(&section, shown, address.as_ref());
    section.done();
    Some(Report {
        address: address?,
        environment: environment.unwrap_or_else(|| shown.to_owned()),
        deployments: deployments.unwrap_or(true),
        auth: match token {
            Some(token) => Auth::Token(token),
            None => Auth::App(GitHubApp {
                id: app_id?,
                private_key: private_key?,
                installation,
            }),
        },
    })
}

/// Reports mistakes in the authentication, which must be either a token or a GitHub App.
fn one_proof(section: &Section<'_>, shown: &str, address: Option<&ForgeAddress>) {
    if section.is_misshapen() {
        return;
    }
    let by_app = section.has("app_id") || section.has("private_key");
    if section.has("token") && by_app {
        let key = section.key("app_id");
        section.report(format!(
            "`{key}` and `token` are both set: expected one of them"
        ));
    } else if by_app {
        for key in ["app_id", "private_key"] {
            if !section.has(key) {
                let key = section.key(key);
                section.report(format!(
                    "`{key}` is missing: expected both the GitHub App's id and its private key"
                ));
            }
        }
        if let Some(address) = address.filter(|it| it.forge != ForgeApi::GitHub) {
            let key = section.key("app_id");
            section.report(format!(
                "`{key}` is a GitHub App's: expected a `token`, which is what {} takes",
                address.forge
            ));
        }
    } else if !section.has("token") {
        section.report(format!(
            "`{}` is missing: expected where to read the forge's token from, such as \
             {{ env = \"{}_TOKEN\" }}",
            section.key("token"),
            shown.to_uppercase().replace('-', "_")
        ));
    }
}

fn found(section: &Section<'_>, repo: &Repo, asked: &Asked<'_>) -> Option<ForgeAddress> {
    let (key, expected) = match ForgeAddress::find(repo, asked) {
        Ok(address) => return Some(address),
        Err(Missing::Forge { host }) => (
            "forge",
            format!("one of {}, since `{host}` could be any", names()),
        ),
        Err(Missing::Url) => (
            "url",
            "the forge's address such as \"https://github.com\", since `repo` does not say it"
                .to_owned(),
        ),
        Err(Missing::Repository) => (
            "repository",
            "the repository's path at the forge such as \"acme/hello\", since `repo` does not say it"
                .to_owned(),
        ),
    };
    // A key that is present but invalid has already been reported.
    if !section.is_misshapen() && !section.has(key) {
        let key = section.key(key);
        section.report(format!("`{key}` is missing: expected {expected}"));
    }
    None
}

/// The names of the forges that accept reports.
fn names() -> String {
    let all = webhook::Forge::ALL.into_iter();
    let told = all.filter(|forge| ForgeApi::of(*forge).is_some());
    let quoted: Vec<_> = told.map(|forge| format!("\"{forge}\"")).collect();
    quoted.join(", ")
}

fn forge(node: &Node<'_>) -> Option<webhook::Forge> {
    let expected = format!("one of {}", names());
    let forge = node.str(&expected)?.parse().ok();
    forge
        .filter(|forge| ForgeApi::of(*forge).is_some())
        .or_else(|| node.wrong(&expected))
}

/// A GitHub App's client id, or the numeric id that preceded client ids.
fn app_id(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "the GitHub App's client id such as \"Iv23liABCDEF\", or its number";
    if let DeValue::Integer(_) = node.value.get_ref() {
        return node.integer(1, u32::MAX.into()).map(|id| id.to_string());
    }
    let text = node.str(EXPECTED)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    match (1..=100).contains(&text.len()) && text.chars().all(plain) {
        true => Some(text.to_owned()),
        false => node.wrong(EXPECTED),
    }
}

fn url(node: Node<'_>) -> Option<Url> {
    const EXPECTED: &str = "the forge's address such as \"https://git.example.com\"";
    let text = node.str(EXPECTED)?;
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    let Some(url) = url else {
        return node.wrong(EXPECTED);
    };
    // The value may contain a token, so it is not shown.
    match url.username().is_empty() && url.password().is_none() {
        true => Some(url),
        false => node.wrong_unshown(format!("{EXPECTED}, without a user name or token in it")),
    }
}

fn repository(node: Node<'_>) -> Option<&str> {
    const EXPECTED: &str = "the repository's path at the forge such as \"acme/hello\"";
    let text = node.str(EXPECTED)?;
    let segment = |text: &str| {
        !text.is_empty() && text != "." && text != ".." && !text.contains(char::is_control)
    };
    let good = text.contains('/') && text.split('/').all(segment) && text.len() <= 500;
    match good && !text.contains("://") {
        true => Some(text),
        false => node.wrong(EXPECTED),
    }
}

/// An environment's name that every forge accepts, also as part of a status's name.
fn environment(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str =
        "an environment's name: 1 to 100 of letters, digits, `-`, `_`, `.` and `/` inside";
    let text = node.str(EXPECTED)?;
    let good = (1..=100).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b))
        && !text.starts_with('/')
        && !text.ends_with('/');
    match good {
        true => Some(text.to_owned()),
        false => node.wrong(EXPECTED),
    }
}
