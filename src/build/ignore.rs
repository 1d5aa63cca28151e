//! .dockerignore: which paths of the context are excluded.

use super::BuildError;
use super::pattern::Pattern;

/// The rules of one .dockerignore; the last one that matches a path, or a folder above it, decides.
#[derive(Debug, Default)]
pub(super) struct Ignore(Vec<Rule>);

#[derive(Debug)]
struct Rule {
    /// `!`: what matches is sent after all.
    except: bool,
    pattern: Pattern,
    text: String,
}

impl Rule {
    /// Whether it can match something below this folder, by what it begins with.
    fn reaches_below(&self, folder: &str) -> bool {
        let below = format!("{folder}/");
        match self.text.find(['*', '?', '[', '\\']) {
            None => self.text.starts_with(&below),
            Some(wildcard) => {
                let literal = &self.text[..wildcard];
                literal.starts_with(&below) || below.starts_with(literal)
            }
        }
    }
}

/// Which rules match a folder: they need not be checked again for its contents.
#[derive(Debug, Clone, Default)]
pub(super) struct Fits(Vec<bool>);

impl Ignore {
    /// Parses the file's text; `name` names it in errors.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, BuildError> {
        let mut rules = Vec::new();
        for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            // `#` begins a comment only in the first column.
            if line.starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let line = line.trim();
            let (except, text) = match line.strip_prefix('!') {
                Some(rest) => (true, clean(rest.trim())),
                None => (false, clean(line)),
            };
            let parsed = match text.as_str() {
                // The whole context: Docker does not allow excluding that.
                "." if !except => continue,
                "." => Err("there is no pattern after `!`"),
                text => Pattern::parse(text),
            };
            let pattern = parsed.map_err(|why| BuildError::BadIgnore {
                file: name.to_owned(),
                line: number + 1,
                why,
            })?;
            rules.push(Rule {
                except,
                pattern,
                text,
            });
        }
        Ok(Self(rules))
    }

    /// Whether `path` is excluded, given which rules match the folder that contains it.
    pub(super) fn excludes(&self, path: &str, folder: &Fits) -> (bool, Fits) {
        let mut excluded = false;
        let mut fits = vec![false; self.0.len()];
        for (i, rule) in self.0.iter().enumerate() {
            fits[i] = folder.0.get(i).copied().unwrap_or_default();
            // A rule that could not change the answer is not checked.
            if !fits[i] && rule.except == excluded {
                fits[i] = rule.pattern.matches(path);
            }
            if fits[i] {
                excluded = !rule.except;
            }
        }
        (excluded, Fits(fits))
    }

    /// Whether anything in this excluded folder may still be sent.
    pub(super) fn readmits_below(&self, folder: &str) -> bool {
        (self.0.iter()).any(|rule| rule.except && rule.reaches_below(folder))
    }

    /// Whether anything in any excluded folder may still be sent.
    pub(super) fn has_exceptions(&self) -> bool {
        self.0.iter().any(|rule| rule.except)
    }
}

/// `./a//b/../c/` becomes `a/c`; a leading slash means the context folder.
fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() {
        return ".".into();
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(text: &str, path: &str) -> bool {
        let ignore = Ignore::parse(".dockerignore", text).unwrap();
        let mut fits = Fits::default();
        let mut answer = false;
        let ends = path.match_indices('/').map(|(i, _)| i).chain([path.len()]);
        for end in ends {
            (answer, fits) = ignore.excludes(&path[..end], &fits);
        }
        answer
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let text = "# comment\n\n  *.md \n!README.md\nsecret\n/target/\n./a/../b\n";
        for path in ["x.md", "secret", "secret/deep/file", "target/x", "b"] {
            assert!(excluded(text, path), "{path}");
        }
        for path in ["README.md", "docs/x.md", "a", "src/target", "comment"] {
            assert!(!excluded(text, path), "{path}");
        }
        assert!(excluded("*\n!a\na/b", "a/b"));
        assert!(!excluded("*\n!a/b", "a/b"));
        assert!(excluded("*\n!a/b", "a/c"));
        assert!(excluded("!a\n*", "a"));
        assert!(excluded("\u{feff}a\r\nb\r\n", "a"));
        assert!(!excluded(".\n/", "a"));
    }

    #[test]
    fn only_some_exceptions_reach_into_a_folder() {
        let reaches = |text: &str| {
            let ignore = Ignore::parse(".dockerignore", text).unwrap();
            ignore.readmits_below("lib/sub")
        };
        for text in ["!lib/sub/a", "!**/*.md", "!lib/*/a", "!lib/s*", "!*"] {
            assert!(reaches(text), "{text}");
        }
        for text in [
            "*",
            "lib/sub/a",
            "!lib",
            "!lib/su",
            "!docs/*",
            "!lib/subs/*",
        ] {
            assert!(!reaches(text), "{text}");
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = Ignore::parse("x.dockerignore", "a\n!\n").unwrap_err();
        assert!(
            error.to_string().contains("line 2 of `x.dockerignore`"),
            "{error}"
        );
        assert!(Ignore::parse("x", "[a").is_err());
    }
}
