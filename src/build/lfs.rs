//! Git LFS: which files are stored elsewhere, with only a pointer to each in git.

use git2::{ObjectType, Tree};
use globset::{GlobBuilder, GlobMatcher};

use super::BuildError;
use super::objects::{LINK, Objects};

/// Far more rules than anybody writes; each file is checked against all of them.
const MAX_RULES: usize = 10_000;
/// The largest .gitattributes that is read, in bytes.
const MAX_ATTRIBUTES: u64 = 1 << 20;
/// In bytes. According to the specification, a pointer is shorter.
const MAX_POINTER: u64 = 1024;
const VERSIONS: [&[u8]; 2] = [
    b"version https://git-lfs.github.com/spec/v1\n",
    b"version https://hawser.github.com/spec/v1\n",
];

/// What git holds in place of a file: the hash and the size of its content.
pub(super) type Pointer = crate::source::Stored;

/// As git-lfs does, whatever is not exactly a pointer is taken for the file itself.
fn parsed(content: &[u8]) -> Option<Pointer> {
    if !VERSIONS.iter().any(|version| content.starts_with(version)) {
        return None;
    }
    let text = std::str::from_utf8(content).ok()?;
    let field = |name: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    };
    let oid = field("oid")?.strip_prefix("sha256:")?;
    let is_hash = oid.len() == 64 && oid.bytes().all(|b| b.is_ascii_hexdigit());
    let size = field("size")?.parse().ok()?;
    is_hash.then(|| Pointer {
        oid: oid.to_ascii_lowercase(),
        size,
    })
}

/// The `filter` rules of the .gitattributes files. The last rule that matches a file decides; the rules
/// of a folder come after those of its parents.
#[derive(Default)]
pub(super) struct Lfs(Vec<Rule>);

struct Rule {
    /// From the repository's root, with a `/` at its end; empty for the root.
    folder: String,
    pattern: GlobMatcher,
    /// Matches a file of this name in any folder below.
    by_name: bool,
    lfs: bool,
}

impl Lfs {
    /// The rules of the parents of `folder`; its own are read by the walk.
    pub(super) fn above(objects: &Objects, root: &str, folder: &str) -> Result<Self, BuildError> {
        let mut rules = Self::default();
        let parts = folder.split('/').filter(|part| !part.is_empty());
        let mut at = String::new();
        for part in parts {
            rules.enter(
                objects,
                &objects.folder(root, at.trim_end_matches('/'))?,
                &at,
            )?;
            at = format!("{at}{part}/");
        }
        Ok(rules)
    }

    /// Adds the rules of a folder, if it has any.
    pub(super) fn enter(
        &mut self,
        objects: &Objects,
        tree: &Tree<'_>,
        folder: &str,
    ) -> Result<(), BuildError> {
        let Some(entry) = tree.get_name(".gitattributes") else {
            return Ok(());
        };
        let is_link = entry.filemode() == LINK;
        if entry.kind() != Some(ObjectType::Blob) || is_link {
            return Ok(());
        }
        let path = format!("{folder}.gitattributes");
        let blob = objects.blob(entry.id(), &path, MAX_ATTRIBUTES)?;
        let text = String::from_utf8_lossy(blob.content()).into_owned();
        let room = MAX_RULES.saturating_sub(self.0.len());
        let rules = text.lines().filter_map(|line| rule(folder, line));
        self.0.extend(rules.take(room));
        Ok(())
    }

    /// The pointer that git holds in place of the file at this path from the repository's root, if it does.
    pub(super) fn pointer(
        &self,
        path: &str,
        size: u64,
        content: impl FnOnce() -> Result<Vec<u8>, BuildError>,
    ) -> Result<Option<Pointer>, BuildError> {
        if size >= MAX_POINTER || !self.covers(path) {
            return Ok(None);
        }
        Ok(parsed(&content()?))
    }

    fn covers(&self, path: &str) -> bool {
        let fitting = self.0.iter().rfind(|rule| rule.fits(path));
        fitting.is_some_and(|rule| rule.lfs)
    }
}

impl Rule {
    fn fits(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.folder) else {
            return false;
        };
        let name = rest.rsplit('/').next().unwrap_or(rest);
        self.pattern
            .is_match(if self.by_name { name } else { rest })
    }
}

/// A line of .gitattributes, if it sets `filter`.
fn rule(folder: &str, line: &str) -> Option<Rule> {
    let line = line.trim();
    if line.starts_with('#') || line.starts_with("[attr]") {
        return None;
    }
    let (pattern, attributes) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => line.split_once([' ', '\t'])?,
    };
    let lfs = attributes.split_ascii_whitespace().rev().find_map(|word| {
        let name = word.trim_start_matches(['-', '!']);
        (name.split('=').next() == Some("filter")).then_some(word == "filter=lfs")
    })?;
    // `git lfs track` writes a space this way.
    let pattern = pattern.replace("[[:space:]]", " ");
    let by_name = !pattern.contains('/');
    let glob = GlobBuilder::new(pattern.trim_start_matches('/'))
        .literal_separator(true)
        .backslash_escape(true)
        .build();
    Some(Rule {
        folder: folder.to_owned(),
        pattern: glob.ok()?.compile_matcher(),
        by_name,
        lfs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides() {
        let root = "# images\n*.png filter=lfs diff=lfs merge=lfs -text\n/big/** filter=lfs\n\
                    big/small.txt -filter\na[[:space:]]b filter=lfs\n*.txt text\n";
        let below = "*.png !filter\n\"c d.bin\" filter=lfs\n";
        let rules = (root.lines().filter_map(|line| rule("", line)))
            .chain(below.lines().filter_map(|line| rule("web/", line)));
        let lfs = Lfs(rules.collect());
        for (path, covered) in [
            ("a.png", true),
            ("deep/er/a.png", true),
            ("a.jpg", false),
            ("big/x/y", true),
            ("x/big/y", false),
            ("big/small.txt", false),
            ("a b", true),
            ("web/a.png", false),
            ("web/x/a.png", false),
            ("web/c d.bin", true),
            ("c d.bin", false),
        ] {
            assert_eq!(lfs.covers(path), covered, "{path}");
        }
    }

    #[test]
    fn a_pointer_is_told_by_its_form() {
        let lfs = Lfs(rule("", "* filter=lfs").into_iter().collect());
        let of = |size, content: &[u8]| {
            let content = content.to_vec();
            lfs.pointer("x", size, || Ok(content)).unwrap()
        };
        let hash = "ab".repeat(32);
        let pointer = format!(
            "{}oid sha256:{hash}\nsize 12\n",
            "version https://git-lfs.github.com/spec/v1\n"
        );
        let expected = Pointer {
            oid: hash,
            size: 12,
        };
        assert_eq!(of(130, pointer.as_bytes()), Some(expected));
        assert_eq!(of(2000, pointer.as_bytes()), None);
        for other in [
            "\u{89}PNG".to_owned(),
            pointer.replace("size", "sise"),
            pointer.replace("ab", "xy"),
            pointer.replace("12", "-1"),
        ] {
            assert_eq!(of(130, other.as_bytes()), None, "{other}");
        }
    }
}
