//! `kind = "static"`: an app that is a folder of files.

use super::file::{Node, Section};
use super::values::inside;

/// Where the server of sites listens unless `port` says otherwise.
pub(super) const PORT: u16 = 8080;
/// Answered by the server itself, as a site may have no page at `/`.
pub(super) const HEALTH: &str = "/.cutover/health";

/// What there is no use for without an image of the app's own.
const OF_AN_IMAGE: [&str; 4] = ["processes", "cron", "hooks", "test"];

/// A folder of the repository that is served as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Relative, without `..` or repeated slashes; `.` for all of the repository.
    pub dir: String,
    /// The file, below `dir`, that is served in place of pages that do not exist.
    pub fallback: Option<String>,
    /// Paths below `dir` whose content never changes; `*` stands for anything.
    pub immutable: Vec<String>,
}

pub(super) fn site(section: &mut Section<'_>) -> Option<Site> {
    let kind = section.read("kind", |node| {
        const EXPECTED: &str =
            "\"static\", a folder of files; without this key the app is built from its Dockerfile";
        match node.str(EXPECTED)? {
            "static" => Some(()),
            _ => node.wrong(EXPECTED),
        }
    });
    if !section.has("kind") {
        for key in ["dir", "fallback", "immutable"] {
            if let Some(node) = section.node(key) {
                node.report::<()>(format!(
                    "`{}` needs `kind = \"static\"`: expected both or neither",
                    node.path
                ));
            }
        }
        return None;
    }
    for key in OF_AN_IMAGE {
        if section.has(key) {
            section.report(format!(
                "`{}` cannot be combined with `kind = \"static\"`: expected an app with a Dockerfile",
                section.key(key)
            ));
        }
    }
    let dir = section.required(
        "dir",
        "the folder of the repository that is served, such as \"public\"",
        inside,
    );
    let fallback = section.read("fallback", inside);
    let immutable = section.read("immutable", |node| {
        const EXPECTED: &str = "an array of paths below `dir` such as [\"assets/*\"]";
        let one = |node: Node<'_>| match node.str(EXPECTED)?.trim_start_matches('/') {
            "" => node.wrong(EXPECTED),
            text if text.contains(char::is_control) => node.wrong(EXPECTED),
            text => Some(text.to_owned()),
        };
        node.array(EXPECTED)?.into_iter().map(one).collect()
    });
    kind?;
    Some(Site {
        dir: dir?,
        fallback,
        immutable: immutable.unwrap_or_default(),
    })
}
