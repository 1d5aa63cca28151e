//! `[apps.NAME.report]`: whom to tell how deployments end. What the repository's address says does
//! not have to be repeated.

use url::Url;

use super::file::{Node, Section};
use super::values::secret;
use super::{Auth, Repo, Report};
use crate::report::{Address, Asked, Forge, Missing};
use crate::webhook;

/// `app` is the name as it stands in the file, `sender` the forge of the app's webhook.
pub(super) fn report(
    node: Node<'_>,
    app: &str,
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
    let asked = Asked {
        // A webhook's forge that takes no reports says nothing about where they go.
        forge: match forge {
            Some(named) => named,
            None => sender.filter(|sender| Forge::of(*sender).is_some()),
        },
        url: url.as_ref(),
        repository,
    };
    let address = match repo {
        Some(repo) if forge != Some(None) => found(&section, repo, &asked),
        _ => None,
    };
    if !section.has("token") {
        section.report(format!(
            "`{}` is missing: expected where to read the forge's token from, such as \
             {{ env = \"{}_TOKEN\" }}",
            section.key("token"),
            app.to_uppercase().replace('-', "_")
        ));
    }
    section.done();
    Some(Report {
        address: address?,
        environment: environment.unwrap_or_else(|| app.to_owned()),
        deployments: deployments.unwrap_or(true),
        auth: Auth::Token(token?),
    })
}

fn found(section: &Section<'_>, repo: &Repo, asked: &Asked<'_>) -> Option<Address> {
    let (key, expected) = match Address::find(repo, asked) {
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
    // What stands there and is wrong has been reported.
    if !section.has(key) {
        let key = section.key(key);
        section.report(format!("`{key}` is missing: expected {expected}"));
    }
    None
}

/// The forges that take reports.
fn names() -> String {
    let all = webhook::Forge::ALL.into_iter();
    let told = all.filter(|forge| Forge::of(*forge).is_some());
    let quoted: Vec<_> = told.map(|forge| format!("\"{forge}\"")).collect();
    quoted.join(", ")
}

fn forge(node: &Node<'_>) -> Option<webhook::Forge> {
    let expected = format!("one of {}", names());
    let forge = node.str(&expected)?.parse().ok();
    forge
        .filter(|forge| Forge::of(*forge).is_some())
        .or_else(|| node.wrong(&expected))
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
    // It may hold a token.
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

/// What every forge takes as an environment's name and as part of a status's.
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
