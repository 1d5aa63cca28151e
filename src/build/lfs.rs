//! Git LFS: files that are stored elsewhere, with only a pointer to each in git.

use super::BuildError;

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

/// The pointer that git holds in place of a file of this size, if it does.
pub(super) fn pointer(
    size: u64,
    content: impl FnOnce() -> Result<Vec<u8>, BuildError>,
) -> Result<Option<Pointer>, BuildError> {
    match size < MAX_POINTER {
        true => Ok(parsed(&content()?)),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_told_by_its_form() {
        let of = |size, content: &[u8]| {
            let content = content.to_vec();
            pointer(size, || Ok(content)).unwrap()
        };
        let hash = "ab".repeat(32);
        let text = format!(
            "{}oid sha256:{hash}\nsize 12\n",
            "version https://git-lfs.github.com/spec/v1\n"
        );
        let expected = Pointer {
            oid: hash,
            size: 12,
        };
        assert_eq!(of(130, text.as_bytes()), Some(expected));
        assert_eq!(of(2000, text.as_bytes()), None);
        for other in [
            "\u{89}PNG".to_owned(),
            text.replace("size", "sise"),
            text.replace("ab", "xy"),
            text.replace("12", "-1"),
        ] {
            assert_eq!(of(130, other.as_bytes()), None, "{other}");
        }
    }
}
