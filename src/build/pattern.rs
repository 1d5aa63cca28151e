//! One pattern of a .dockerignore, matched as Docker's builder matches it: Go's `filepath.Match`
//! and `**`. No maintained crate does this; shell and git globs treat `**`, braces and slashes
//! differently.

/// A pattern, ready to match paths relative to the context folder.
#[derive(Debug)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Debug)]
enum Piece {
    Char(char),
    /// `?`: any character but a slash.
    One,
    /// `*`: any characters but slashes.
    Some,
    /// Before [`Piece::Folders`]: continues both into it and past it.
    MaybeFolders,
    /// `**/` within a pattern: any text that ends in a slash.
    Folders,
    /// `**` at the end: everything.
    Rest,
    /// `[a-z]` or `[^a-z]`.
    Class(bool, Vec<(char, char)>),
}

impl Pattern {
    /// Parses a cleaned pattern (no trailing slash, no `.`). The error says what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let piece = match c {
                '*' if chars.next_if_eq(&'*').is_some() => {
                    let slash = chars.next_if_eq(&'/').is_some();
                    // `**name` is a plain suffix in Docker unless other wildcards follow.
                    let suffix = !slash && pieces.is_empty() && plain(chars.clone());
                    if suffix || chars.peek().is_none() {
                        Piece::Rest
                    } else {
                        pieces.push(Piece::MaybeFolders);
                        Piece::Folders
                    }
                }
                '*' => Piece::Some,
                '?' => Piece::One,
                '\\' => Piece::Char(chars.next().ok_or("it ends in a single backslash")?),
                '[' => class(&mut chars)?,
                other => Piece::Char(other),
            };
            pieces.push(piece);
        }
        Ok(Self(pieces))
    }

    /// Whether the whole path matches. Linear in the path for any pattern: a set of positions in the
    /// pattern advances along it, without backtracking.
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut places = vec![false; self.0.len() + 1];
        places[0] = true;
        self.spread(&mut places);
        for c in path.chars() {
            let mut next = vec![false; places.len()];
            for (i, piece) in self.0.iter().enumerate().filter(|(i, _)| places[*i]) {
                let (stays, moves) = match piece {
                    Piece::Char(wanted) => (false, *wanted == c),
                    Piece::One => (false, c != '/'),
                    Piece::Some => (c != '/', false),
                    Piece::Rest => (true, false),
                    Piece::MaybeFolders => (false, false),
                    Piece::Folders => (true, c == '/'),
                    Piece::Class(not, ranges) => {
                        let within = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                        (false, within != *not)
                    }
                };
                next[i] |= stays;
                next[i + 1] |= moves;
            }
            places = next;
            self.spread(&mut places);
        }
        places[self.0.len()]
    }

    /// Pieces that may match nothing make the position after them reachable at once.
    fn spread(&self, places: &mut [bool]) {
        for (i, piece) in self.0.iter().enumerate() {
            if places[i] {
                places[i + 1] |= matches!(piece, Piece::Some | Piece::Rest | Piece::MaybeFolders);
                if matches!(piece, Piece::MaybeFolders) {
                    places[i + 2] = true;
                }
            }
        }
    }
}

fn plain(mut rest: impl Iterator<Item = char>) -> bool {
    !rest.any(|c| "*?[]\\".contains(c))
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Piece, &'static str> {
    const OPEN: &str = "a `[` is not closed";
    let not = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        let from = match chars.next().ok_or(OPEN)? {
            ']' if !ranges.is_empty() => return Ok(Piece::Class(not, ranges)),
            ']' | '-' => return Err("a `[…]` is empty or begins with `-`"),
            '\\' => chars.next().ok_or(OPEN)?,
            other => other,
        };
        let to = if chars.next_if_eq(&'-').is_some() {
            match chars.next().ok_or(OPEN)? {
                ']' => return Err("a range in `[…]` has no end"),
                '\\' => chars.next().ok_or(OPEN)?,
                other => other,
            }
        } else {
            from
        };
        ranges.push((from, to));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_docker_matches_them() {
        let table = [
            ("a", "a", "ab b/a"),
            ("a*", "a ab", "ba a/b"),
            ("*", "a .a", "a/b"),
            ("?", "a ä", "ab /"),
            ("a?c", "abc", "ac a/c"),
            ("**", "a a/b", ""),
            ("**/a", "a b/a b/c/a", "ba a/b"),
            ("**a", "a ba b/ba", "ab"),
            ("**/*.go", "x.go a/x.go a/b/x.go", "x.gox"),
            ("a/**", "a/b a/b/c", "a ab"),
            ("a/**/b", "a/b a/x/b a/x/y/b", "ab a/xb"),
            ("a**b", "ab ax/b", "axb"),
            ("a**/b", "ab ax/b a/b", "axb"),
            ("*/b", "a/b", "b a/a/b"),
            ("*/*/b", "x/y/b", "x/b"),
            ("[a-c]x", "ax cx", "dx -x"),
            ("[^a-c]x", "dx", "ax"),
            ("[\\]a]", "] a", "b"),
            ("\\*", "*", "a"),
            ("{a,b}", "{a,b}", "a b"),
            ("a.b", "a.b", "axb"),
            ("a+(b)|$^", "a+(b)|$^", "a"),
            ("ünï*", "ünïx", "unix"),
        ];
        for (pattern, fits, fails) in table {
            let parsed = Pattern::parse(pattern).unwrap();
            for path in fits.split_whitespace() {
                assert!(parsed.matches(path), "`{pattern}` must match `{path}`");
            }
            for path in fails.split_whitespace() {
                assert!(!parsed.matches(path), "`{pattern}` must not match `{path}`");
            }
        }
    }

    #[test]
    fn malformed_patterns_are_errors() {
        for bad in ["[", "[a", "[]", "[a-]", "[-a]", "a\\", "[^]", "[\\"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_made_to_backtrack_costs_no_time() {
        let pattern = Pattern::parse(&("*a".repeat(50) + "b")).unwrap();
        assert!(!pattern.matches(&"a".repeat(5_000)));
    }
}
