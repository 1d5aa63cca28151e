//! `working-tree-encoding` of .gitattributes: git holds text in UTF-8, and a checkout has it in another encoding.

use encoding_rs::{Encoding as Legacy, REPLACEMENT, UTF_8};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Utf16(Units),
    Utf32(Units),
    /// Each character is one byte, of which there are so many.
    Bytes(u32),
    Other(&'static Legacy),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Units {
    big_endian: bool,
    /// Begins with a byte order mark.
    marked: bool,
}

/// `None`: it is not known. `Some(None)`: git's own.
pub(super) fn encoding(name: &str) -> Option<Option<Encoding>> {
    let name = name.to_ascii_uppercase();
    let units = |rest: &str| {
        let (big_endian, marked) = match rest {
            // The order is that of iconv on the machines that Docker's images are for.
            "" => (false, true),
            "LE" => (false, false),
            "BE" => (true, false),
            "LE-BOM" => (false, true),
            "BE-BOM" => (true, true),
            _ => return None,
        };
        Some(Units { big_endian, marked })
    };
    let of = |prefixes: [&str; 2]| {
        let rest = prefixes.iter().find_map(|it| name.strip_prefix(it))?;
        units(rest)
    };
    if let Some(units) = of(["UTF-16", "UTF16"]) {
        return Some(Some(Encoding::Utf16(units)));
    }
    if let Some(units) = of(["UTF-32", "UTF32"]) {
        return Some(Some(Encoding::Utf32(units)));
    }
    match name.as_str() {
        "UTF-8" | "UTF8" => return Some(None),
        // Browsers take these for something larger.
        "ISO-8859-1" | "ISO8859-1" | "LATIN1" | "LATIN-1" => {
            return Some(Some(Encoding::Bytes(256)));
        }
        "US-ASCII" | "ASCII" => return Some(Some(Encoding::Bytes(128))),
        _ => {}
    }
    let page = name
        .strip_prefix("CP")
        .map(|page| format!("windows-{page}"));
    let legacy = [Some(name), page].into_iter().flatten();
    let legacy = legacy.filter_map(|name| Legacy::for_label(name.as_bytes()));
    let mut legacy = legacy.filter(|it| *it != REPLACEMENT && *it != UTF_8);
    legacy.next().map(|it| Some(Encoding::Other(it)))
}

/// `None`: it has something that is not text, or that the encoding has no code for. A checkout leaves it.
pub(super) fn encoded(content: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(content).ok()?;
    Some(match encoding {
        Encoding::Utf16(units) => {
            let mark = units.marked.then_some('\u{feff}' as u16);
            let all = mark.into_iter().chain(text.encode_utf16());
            match units.big_endian {
                true => all.flat_map(u16::to_be_bytes).collect(),
                false => all.flat_map(u16::to_le_bytes).collect(),
            }
        }
        Encoding::Utf32(units) => {
            let mark = units.marked.then_some('\u{feff}');
            let all = mark.into_iter().chain(text.chars()).map(u32::from);
            match units.big_endian {
                true => all.flat_map(u32::to_be_bytes).collect(),
                false => all.flat_map(u32::to_le_bytes).collect(),
            }
        }
        Encoding::Bytes(many) => {
            let byte = |c: char| u8::try_from(c).ok().filter(|_| u32::from(c) < many);
            text.chars().map(byte).collect::<Option<_>>()?
        }
        Encoding::Other(legacy) => match legacy.encode(text) {
            (bytes, _, false) => bytes.into_owned(),
            _ => return None,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_encoded_as_git_does_it() {
        for (name, text, expected) in [
            ("UTF-16", "aé", Some(&b"\xff\xfea\0\xe9\0"[..])),
            ("utf-16be", "a\u{1f600}", Some(b"\0a\xd8\x3d\xde\x00")),
            ("UTF-16LE-BOM", "a", Some(b"\xff\xfea\0")),
            ("UTF-16BE-BOM", "a", Some(b"\xfe\xff\0a")),
            ("UTF-32LE", "a", Some(b"a\0\0\0")),
            ("ISO-8859-1", "é", Some(b"\xe9")),
            ("ISO-8859-1", "€", None),
            ("ASCII", "é", None),
            ("CP1252", "€", Some(b"\x80")),
            ("windows-1251", "я", Some(b"\xff")),
            ("Shift-JIS", "あ", Some(b"\x82\xa0")),
            ("EUC-JP", "\u{1f600}", None),
        ] {
            let known = encoding(name).flatten().unwrap();
            let encoded = encoded(text.as_bytes(), known);
            assert_eq!(encoded.as_deref(), expected, "{name}");
        }
        assert_eq!(encoding("utf8"), Some(None));
        let latin = encoding("latin1").flatten().unwrap();
        assert_eq!(encoded(b"\xff", latin), None);
        for name in ["UTF-7", "UTF-16XE", "", "iso-2022-cn"] {
            assert_eq!(encoding(name), None, "{name}");
        }
    }
}
