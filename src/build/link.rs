//! Resolves symbolic links of the context.

/// Linux's own limit on the links followed in one path.
const LINKS: usize = 40;

/// Resolves the links in `path`; `target` returns the target of the link at a path, if there is
/// one. `None`: the path leads out of the context or in a circle. A path that does not exist
/// resolves to itself.
pub(super) fn follow(path: &str, target: impl Fn(&str) -> Option<String>) -> Option<String> {
    let mut rest: Vec<String> = parts(path).rev().collect();
    let mut at: Vec<String> = Vec::new();
    let mut followed = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop()?;
            continue;
        }
        at.push(part);
        let Some(target) = target(&at.join("/")) else {
            continue;
        };
        followed += 1;
        if target.starts_with('/') || followed > LINKS {
            return None;
        }
        at.pop();
        rest.extend(parts(&target).rev());
    }
    Some(at.join("/"))
}

fn parts(path: &str) -> impl DoubleEndedIterator<Item = String> {
    (path
        .split('/')
        .filter(|part| !part.is_empty() && *part != "."))
    .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn links_are_followed_through_folders_that_are_links() {
        let table = [
            ("a", "b", Some("b")),
            ("a/b/c", "../../d", Some("d")),
            ("a/b", "../../d", None),
            ("a", "/etc/passwd", None),
            ("a", "..", None),
            ("a", ".", Some("")),
            ("a", "b/../../x", None),
            ("a", "up/..", None),
            ("a", "down/../..", Some("")),
            ("a", "a", None),
            ("a", "gone/x", Some("gone/x")),
        ];
        for (link, target, expected) in table {
            let links = HashMap::from([
                (link.to_owned(), target.to_owned()),
                ("up".into(), "deep/folder/../..".into()),
                ("down".into(), "deep/folder".into()),
            ]);
            let found = follow(link, |path| links.get(path).cloned());
            assert_eq!(found.as_deref(), expected, "{link} -> {target}");
        }
    }
}
