//! Links to commits at the forge.

use maud::{Markup, html};

use crate::config::{App, ForgeAddress, ForgeApi};

/// The page of what differs between two commits.
fn compare(forge: &ForgeAddress, from: &str, to: &str) -> String {
    let (web, path) = (&forge.web, forge.repository());
    match forge.forge {
        ForgeApi::GitHub | ForgeApi::Gitea => format!("{web}/{path}/compare/{from}...{to}"),
        ForgeApi::GitLab => format!("{web}/{path}/-/compare/{from}...{to}"),
        // The newer one comes first.
        ForgeApi::Bitbucket => format!("{web}/{path}/branches/compare/{to}%0D{from}"),
        ForgeApi::DataCenter => {
            let (project, name) = forge.owner_and_name();
            format!(
                "{web}/projects/{project}/repos/{name}/compare/commits?sourceBranch={to}&targetBranch={from}"
            )
        }
    }
}

/// A link to what a deployment changed; nothing if nobody knows the forge.
pub fn changes(app: Option<&App>, from: Option<&str>, to: Option<&str>) -> Markup {
    let forge = app.and_then(App::forge);
    html! {
        @if let (Some(forge), Some(from), Some(to)) = (forge, from, to) && from != to {
            a href=(compare(&forge, from, to)) rel="noreferrer" { "Changes since " (from.get(..7).unwrap_or(from)) }
        }
    }
}
