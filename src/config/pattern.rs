//! Patterns for the names of branches and tags.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};

/// A glob for the names of branches or tags: `*` does not match a `/`, `**` does.
#[derive(Debug, Clone)]
pub struct Pattern(GlobMatcher);

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.glob().glob())
    }
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, globset::Error> {
        let glob = GlobBuilder::new(text).literal_separator(true).build()?;
        Ok(Self(glob.compile_matcher()))
    }

    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stays_within_a_slash() {
        for (pattern, name, expected) in [
            ("v*", "v1.2", true),
            ("v*", "w1", false),
            ("v*", "v1/2", false),
            ("release/**", "release/2026/1", true),
            ("release/*", "release/x", true),
            ("v[0-9]*", "v1", true),
            ("v[0-9]*", "vx", false),
            ("{a,b}", "b", true),
        ] {
            let found = Pattern::parse(pattern).unwrap().matches(name);
            assert_eq!(found, expected, "{pattern} {name}");
        }
        assert!(Pattern::parse("[").is_err());
    }
}
