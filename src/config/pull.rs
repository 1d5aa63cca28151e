//! `build.pull`: when the registries are asked for base images.

use super::file::Node;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// Before each build: what has changed there under the same name is another input.
    Always,
    /// For what the engine does not have under that name.
    #[default]
    Missing,
    /// Not at all: what the engine does not have fails the build.
    Never,
}

pub(super) fn pull(node: Node<'_>) -> Option<Pull> {
    const EXPECTED: &str = "\"always\", \"missing\" or \"never\"";
    match node.str(EXPECTED)? {
        "always" => Some(Pull::Always),
        "missing" => Some(Pull::Missing),
        "never" => Some(Pull::Never),
        _ => node.wrong(EXPECTED),
    }
}
