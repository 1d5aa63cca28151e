//! .gitattributes: what a checkout makes of the files that git holds.

use git2::{ObjectType, Tree};
use globset::{GlobBuilder, GlobMatcher};

use super::BuildError;
use super::encode::{Encoding, encoding};
use super::objects::{LINK, Objects};

/// Far more rules than anybody writes; each file is checked against all of them.
const MAX_RULES: usize = 10_000;
/// The largest .gitattributes that is read, in bytes.
const MAX_ATTRIBUTES: u64 = 1 << 20;
const NAMES: [&str; 5] = ["filter", "text", "eol", "ident", "working-tree-encoding"];

/// The rules of the .gitattributes files. Of those that match a file, the last that says something of an
/// attribute decides; the rules of a folder come after those of its parents.
#[derive(Default)]
pub(super) struct Attributes(Vec<Rule>);

/// The attributes of a file.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributed {
    /// `filter=lfs`.
    pub(super) lfs: bool,
    /// Lines end with a carriage return and a line feed.
    pub(super) crlf: Option<Crlf>,
    /// `$Id$` becomes `$Id: …$`.
    pub(super) ident: bool,
    /// What it is written in.
    pub(super) encoding: Option<Encoding>,
}

impl Attributed {
    /// Whether a checkout has the file in another form.
    pub(super) fn converts(&self) -> bool {
        self.crlf.is_some() || self.ident || self.encoding.is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crlf {
    /// Whatever the file is.
    Always,
    /// If it looks like text.
    Auto,
}

struct Rule {
    /// From the repository's root, with a `/` at its end; empty for the root.
    folder: String,
    pattern: GlobMatcher,
    /// Matches a file of this name in any folder below.
    by_name: bool,
    /// By their places in [`NAMES`]; `None`: it does not say.
    values: [Option<Value>; NAMES.len()],
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Set,
    /// `-name`.
    Unset,
    /// `!name`.
    Unsaid,
    Is(String),
}

impl Attributes {
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
        self.read(folder, &String::from_utf8_lossy(blob.content()));
        Ok(())
    }

    fn read(&mut self, folder: &str, text: &str) {
        let room = MAX_RULES.saturating_sub(self.0.len());
        let rules = text.lines().filter_map(|line| rule(folder, line));
        self.0.extend(rules.take(room));
    }

    /// Those of the file at this path from the repository's root.
    pub(super) fn of(&self, path: &str) -> Result<Attributed, BuildError> {
        let mut said: [Option<&Value>; NAMES.len()] = [None; NAMES.len()];
        for rule in self.0.iter().rev().filter(|rule| rule.fits(path)) {
            for (said, value) in said.iter_mut().zip(&rule.values) {
                *said = said.or(value.as_ref());
            }
        }
        let is =
            |value: Option<&Value>, text: &str| matches!(value, Some(Value::Is(it)) if it == text);
        let [filter, text, eol, ident, encoded] = said;
        let crlf = match text {
            _ if !is(eol, "crlf") => None,
            Some(Value::Unset) => None,
            text if is(text, "auto") => Some(Crlf::Auto),
            _ => Some(Crlf::Always),
        };
        let unknown = |name: &str| BuildError::Encoding {
            path: path.to_owned(),
            name: name.to_owned(),
        };
        let encoding = match encoded {
            Some(Value::Is(name)) => encoding(name).ok_or_else(|| unknown(name))?,
            Some(Value::Set) => return Err(unknown("true")),
            Some(Value::Unset) => return Err(unknown("false")),
            Some(Value::Unsaid) | None => None,
        };
        Ok(Attributed {
            lfs: is(filter, "lfs"),
            crlf,
            ident: ident == Some(&Value::Set),
            encoding,
        })
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

/// A line of .gitattributes, if it says something that matters here.
fn rule(folder: &str, line: &str) -> Option<Rule> {
    let line = line.trim();
    if line.starts_with('#') || line.starts_with("[attr]") {
        return None;
    }
    let (pattern, attributes) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => line.split_once([' ', '\t'])?,
    };
    let mut values = [const { None }; NAMES.len()];
    for word in attributes.split_ascii_whitespace() {
        // Git's own macro for `-diff -merge -text`.
        let word = if word == "binary" { "-text" } else { word };
        let (name, value) = match (word.split_once('='), word.split_at_checked(1)) {
            (Some((name, value)), _) => (name, Value::Is(value.to_owned())),
            (None, Some(("-", name))) => (name, Value::Unset),
            (None, Some(("!", name))) => (name, Value::Unsaid),
            _ => (word, Value::Set),
        };
        if let Some(place) = NAMES.iter().position(|it| *it == name) {
            values[place] = Some(value);
        }
    }
    if values.iter().all(Option::is_none) {
        return None;
    }
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
        values,
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
        let mut rules = Attributes::default();
        rules.read("", root);
        rules.read("web/", below);
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
            assert_eq!(rules.of(path).unwrap().lfs, covered, "{path}");
        }
    }

    #[test]
    fn attributes_of_one_file_may_come_from_several_rules() {
        let mut rules = Attributes::default();
        let root = "* text=auto\n*.bat eol=crlf\n*.ps1 text eol=crlf ident\n*.bin eol=crlf\n*.bin binary\n\
                    *.sh text eol=lf\nlf.bat eol=lf\nno.ps1 -ident !text\n";
        rules.read("", root);
        for (path, crlf, ident) in [
            ("a.txt", None, false),
            ("a.bat", Some(Crlf::Auto), false),
            ("x/a.ps1", Some(Crlf::Always), true),
            ("a.bin", None, false),
            ("a.sh", None, false),
            ("lf.bat", None, false),
            ("no.ps1", Some(Crlf::Always), false),
        ] {
            let of = rules.of(path).unwrap();
            assert_eq!((of.crlf, of.ident), (crlf, ident), "{path}");
        }
    }

    #[test]
    fn an_encoding_that_is_not_known_is_named() {
        let mut rules = Attributes::default();
        rules.read("", "*.txt working-tree-encoding=UTF-99\n*.a working-tree-encoding\nb.txt !working-tree-encoding\n");
        for path in ["x/a.txt", "x.a"] {
            let error = rules.of(path).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
        assert_eq!(rules.of("b.txt").unwrap(), Attributed::default());
    }
}
