//! A filter by path, for repositories that hold several apps: `paths = ["api/**"]`.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Globs of which at least one must match a changed path.
#[derive(Debug, Clone)]
pub struct PathFilter(GlobSet);

impl PathFilter {
    /// If more paths than this have changed, they are not listed, and all paths count as changed.
    pub const MAX_CHANGED: usize = 20_000;

    /// Parses the globs. `*` does not match a `/`, `**` does; `api/` and `api` also match
    /// everything in the folder. The error names the invalid glob.
    pub fn parse(globs: &[String]) -> Result<Self, String> {
        let mut set = GlobSetBuilder::new();
        for text in globs {
            let text = text.trim_start_matches("./").trim_matches('/');
            if text.is_empty() {
                return Err(
                    "an empty path matches nothing: remove `paths` to deploy every push".into(),
                );
            }
            let mut outside = text.split(['{', '}']).step_by(2);
            if text.starts_with('!') || outside.any(|part| part.contains(',')) {
                return Err(format!(
                    "`{text}` would match nothing: expected one pattern of the paths that lead to a \
                     deployment, such as \"api/**\" (several are an array; there is no exclusion)"
                ));
            }
            for glob in [text.to_owned(), format!("{text}/**")] {
                let glob = (GlobBuilder::new(&glob).literal_separator(true).build())
                    .map_err(|error| format!("`{text}` is not a path pattern: {}", error.kind()))?;
                set.add(glob);
            }
        }
        let set = set.build().map_err(|error| error.to_string())?;
        Ok(Self(set))
    }

    /// Whether any of the changed paths matches.
    pub fn any(&self, changed: &[String]) -> bool {
        changed.iter().any(|path| self.0.is_match(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_fit_paths_below_them() {
        let table = [
            ("api/**", "api/main.rs", true),
            ("api/**", "apiary/x", false),
            ("api", "api/deep/x", true),
            ("./api/", "api/x", true),
            ("*.toml", "Cargo.toml", true),
            ("*.toml", "api/Cargo.toml", false),
            ("**/Cargo.toml", "api/Cargo.toml", true),
            ("{api,web}/**", "web/x", true),
            ("api/*/x", "api/a/b/x", false),
        ];
        for (glob, path, fits) in table {
            let paths = PathFilter::parse(&[glob.to_owned()]).unwrap();
            assert_eq!(paths.any(&[path.to_owned()]), fits, "{glob} {path}");
        }
        assert!(
            PathFilter::parse(&["[".to_owned()])
                .unwrap_err()
                .contains("`[`")
        );
        for wrong in ["/", "!docs/**", "a/**,b/**"] {
            assert!(PathFilter::parse(&[wrong.to_owned()]).is_err(), "{wrong}");
        }
    }
}
