//! The program that reads the Dockerfile in place of the engine's own parser, if one is named, as by `# syntax=`.
//! It runs as a part of the build, which gives it files and secrets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::BuildError;
use super::dockerfile::Dockerfile;
use crate::config::{self, Frontends};
use crate::store::log::Log;

const ARGUMENT: &str = "BUILDKIT_SYNTAX";
const MARK: &str = "\u{feff}";
/// The lines that name a program may also begin like those of other languages.
const COMMENTS: [&str; 2] = ["#", "//"];

/// The programs that may read it. Refuses one that is not allowed; where none is, a line that names one is taken out.
pub(super) fn check(
    dockerfile: &mut Dockerfile,
    args: &BTreeMap<String, String>,
    settings: &config::Build,
    log: &Log,
) -> Result<BTreeSet<String>, BuildError> {
    let allowed = &settings.frontends;
    if matches!(allowed, Frontends::Builtin) {
        let text = String::from_utf8_lossy(&dockerfile.text);
        if let Some((text, image)) = without(&text) {
            log.line(&format!(
                "`# syntax={image}` is not followed, as `build.frontends` says: Docker's own parser reads the Dockerfile"
            ));
            dockerfile.text = text.into_bytes();
        }
    }
    let text = String::from_utf8_lossy(&dockerfile.text);
    let lines = named(&text).into_iter().map(|(line, image)| {
        let place = format!("line {line} of `{}`", dockerfile.named);
        (place, image)
    });
    let argument = args.get(ARGUMENT).map(|command| {
        let place = format!("`build.args.{ARGUMENT}`");
        (place, first_word(command.trim()))
    });
    let mut all = BTreeSet::new();
    for (place, image) in lines.chain(argument) {
        if !allowed.allow(&image) {
            return Err(BuildError::Frontend { place, image });
        }
        all.insert(image);
    }
    Ok(all)
}

/// Each that one version of BuildKit or another follows, with its line.
fn named(text: &str) -> Vec<(usize, String)> {
    let (begin, text) = begin(text);
    let mut found = Vec::new();
    for comment in COMMENTS {
        let directives = text.lines().map_while(|line| directive(line, comment));
        let of = |(at, (key, value)): (usize, (String, &str))| {
            (key == "syntax").then(|| (begin + at + 1, first_word(value)))
        };
        found.extend(directives.enumerate().filter_map(of));
    }
    if text.trim_start().starts_with('{') {
        match serde_json::from_str::<Value>(text) {
            Ok(json) => found.extend(json["syntax"].as_str().map(|it| (1, it.to_owned()))),
            // What is not understood here might be elsewhere.
            Err(_) => found.push((1, "{…}".to_owned())),
        }
    }
    found
}

/// The Dockerfile without the line, and which program it names. The lines of instructions stay where they are.
fn without(text: &str) -> Option<(String, String)> {
    let (_, own) = begin(text);
    let before = &text[..text.len() - own.len()];
    let (mut kept, mut taken, mut image) = (String::new(), String::new(), None);
    let mut rest = own;
    for line in own.split_inclusive('\n') {
        let Some((key, value)) = directive(line, "#") else {
            break;
        };
        rest = &rest[line.len()..];
        if key == "syntax" {
            // Only where directives end may a comment be.
            taken.push_str("#\n");
            image = Some(first_word(value));
        } else {
            kept.push_str(line);
        }
    }
    let before = before.trim_start_matches(MARK);
    image.map(|image| (format!("{before}{kept}{taken}{rest}"), image))
}

/// How many lines come before those that are looked at, and what comes after them.
fn begin(text: &str) -> (usize, &str) {
    let text = text.trim_start_matches(MARK);
    match text.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => (1, rest),
        _ => (0, text),
    }
}

/// `# key = value`, the key in lower case.
fn directive<'a>(line: &'a str, comment: &str) -> Option<(String, &'a str)> {
    let (key, value) = line.strip_prefix(comment)?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let good = key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    (good && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_is_found_wherever_buildkit_finds_one() {
        for (text, expected) in [
            ("# syntax=a/b:1\nFROM x", &[(1, "a/b:1")][..]),
            ("#syntax = a/b:1 --x=y \r\nFROM x", &[(1, "a/b:1")]),
            ("\u{feff}# SYNTAX=a\n", &[(1, "a")]),
            ("#!/usr/bin/x\n# escape=`\n# syntax=a\n", &[(3, "a")]),
            (
                "# check=skip=all\n# other=1\n# syntax=a\n# syntax=b",
                &[(3, "a"), (4, "b")],
            ),
            ("// syntax=a\nx", &[(1, "a")]),
            ("{\"syntax\": \"a\"}", &[(1, "a")]),
            (" {\"x\": [[\"syntax\"", &[(1, "{…}")]),
            ("{\"x\": 1}", &[]),
            ("# a comment\n# syntax=a\nFROM x", &[]),
            ("\n# syntax=a", &[]),
            (" # syntax=a", &[]),
            ("FROM x\n# syntax=a", &[]),
            ("# syntax=", &[]),
            ("", &[]),
        ] {
            let expected: Vec<_> = expected
                .iter()
                .map(|(n, it)| (*n, (*it).to_owned()))
                .collect();
            assert_eq!(named(text), expected, "{text:?}");
        }
    }

    #[test]
    fn without_its_line_a_dockerfile_keeps_its_lines_and_other_directives() {
        for (text, expected) in [
            ("# syntax=a\nFROM x\n", "#\nFROM x\n"),
            (
                "\u{feff}# syntax=a\r\n# escape=`\r\nFROM x",
                "# escape=`\r\n#\nFROM x",
            ),
            ("#!/x\n# escape=`\n# syntax=a", "#!/x\n# escape=`\n#\n"),
        ] {
            let (found, image) = without(text).unwrap();
            assert_eq!((&*found, &*image), (expected, "a"), "{text:?}");
            assert!(named(&found).is_empty());
            assert_eq!(found.lines().count(), text.lines().count());
        }
        assert!(without("# escape=`\nFROM x").is_none());
    }
}
