//! Paths in deploy.toml: those inside the repository, and those on this machine.

use std::path::{Component, Path, PathBuf};

/// Normalizes a path inside the repository: `./a//b/` becomes `a/b`, and `./` becomes `.`. The
/// error says what was expected.
pub(super) fn inside(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a path inside the repository, `.` for all of it".into());
    }
    if text.starts_with('/') {
        return Err("a path from the top of the repository, without the leading `/`".into());
    }
    if text.contains(char::is_control) {
        return Err("a path without control characters".into());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts
                    .pop()
                    .ok_or("a path that stays inside the repository")?;
            }
            part if part.eq_ignore_ascii_case(".git") => {
                return Err("a path outside of `.git`".into());
            }
            part => parts.push(part),
        }
    }
    Ok(match parts.is_empty() {
        true => ".".into(),
        false => parts.join("/"),
    })
}

/// An absolute path on this machine; a relative one is resolved against `folder`, which contains
/// deploy.toml. The error says what was expected.
pub(super) fn on_this_machine(folder: &Path, text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path".into());
    }
    if text == "~" || text.starts_with("~/") {
        return Err("a full path; `~` is not expanded".into());
    }
    let joined = folder.join(text);
    // `.` components are removed, so that messages show the path as people write it; `..` is kept,
    // because its meaning depends on symbolic links.
    Ok(joined
        .components()
        .filter(|part| *part != Component::CurDir)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside_the_repository() {
        for (text, tidy) in [
            (".", "."),
            ("./", "."),
            ("a", "a"),
            ("./a//b/", "a/b"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("...", "..."),
            ("-x", "-x"),
        ] {
            assert_eq!(inside(text).as_deref(), Ok(tidy), "{text}");
        }
        for bad in [
            "",
            "/",
            "/etc",
            "..",
            "../x",
            "a/../../b",
            "a\0b",
            "a\nb",
            ".git/hooks",
            "x/.GIT",
        ] {
            assert!(inside(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_relative_path_starts_where_the_file_stands() {
        let folder = Path::new("/etc/cutover");
        for (text, path) in [
            ("/var/x", "/var/x"),
            ("x", "/etc/cutover/x"),
            ("./x", "/etc/cutover/x"),
            ("../x", "/etc/cutover/../x"),
        ] {
            assert_eq!(on_this_machine(folder, text).unwrap(), Path::new(path));
        }
        for bad in ["", "~", "~/x", "a\0"] {
            assert!(on_this_machine(folder, bad).is_err(), "{bad:?}");
        }
    }
}
