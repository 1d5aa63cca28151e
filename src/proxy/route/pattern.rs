//! Patterns for the paths of requests.

use serde::{Deserialize, Serialize};

/// A path in which each `*` stands for any characters or none, slashes among them.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct PathPattern(String);

/// The longest pattern, in bytes.
const LONGEST: usize = 512;

impl PathPattern {
    pub fn parse(text: &str) -> Option<Self> {
        let good = |b: u8| b.is_ascii_graphic() && !b"?#%\\".contains(&b);
        let begins = text.starts_with(['/', '*']);
        let is_good = begins && text.len() <= LONGEST && text.bytes().all(good);
        is_good.then(|| Self(text.to_owned()))
    }

    pub fn matches(&self, path: &str) -> bool {
        let (pattern, path) = (self.0.as_bytes(), path.as_bytes());
        let (mut at, mut of_path) = (0, 0);
        // Where to go on if what follows the last `*` does not match: it stands for one byte more.
        let mut again = None;
        while of_path < path.len() {
            if pattern.get(at) == Some(&b'*') {
                again = Some((at, of_path));
                at += 1;
            } else if pattern.get(at) == Some(&path[of_path]) {
                at += 1;
                of_path += 1;
            } else if let Some((star, from)) = again {
                again = Some((star, from + 1));
                at = star + 1;
                of_path = from + 1;
            } else {
                return false;
            }
        }
        pattern[at..].iter().all(|&byte| byte == b'*')
    }
}

/// Whether an app can take the path only for what it says: many resolve `..` and escapes, drop what
/// follows a `;`, or join slashes, and then see another path.
pub fn is_plain(path: &str) -> bool {
    let odd = path.bytes().any(|b| b"%;\\".contains(&b)) || path.contains("//");
    !odd && path.split('/').all(|part| part != "." && part != "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, path, matches) in [
            ("/up", "/up", true),
            ("/up", "/up/", false),
            ("/up", "/upper", false),
            ("/hooks/*", "/hooks/a/b", true),
            ("/hooks/*", "/hooks", false),
            ("*.png", "/a/b.png", true),
            ("*.png", "/a/b.png.html", false),
            ("/a*b*c", "/a-b-b-c", true),
            ("/a*b*c", "/a-c", false),
            ("*", "/", true),
            ("/**", "/x", true),
        ] {
            let parsed = PathPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(path), matches, "{pattern} {path}");
        }
        for wrong in ["", "up", "/a?b", "/a b", "/%61", "/\u{e9}"] {
            assert_eq!(PathPattern::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_not_plain() {
        for path in ["/", "/a/b.c", "/..a/b"] {
            assert!(is_plain(path), "{path}");
        }
        for path in [
            "/a/../b",
            "/a/.",
            "//b",
            "/a/%2e%2e/b",
            "/a/..;/b",
            "/a\\..\\b",
        ] {
            assert!(!is_plain(path), "{path}");
        }
    }
}
