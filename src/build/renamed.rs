//! A Dockerfile in which some images have other names. Its lines stay where they are.

use std::collections::BTreeMap;
use std::ops::Range;

use super::arguments::Arguments;
use super::bases::Found;
use super::instructions::{escape, instructions, unquoted};

/// Gives each image that is named in FROM, `COPY --from` or `RUN --mount=from` the name that `other` has for
/// it, if it has any. Stages count as images here.
pub(super) fn renamed(
    dockerfile: &str,
    arguments: &Arguments<'_>,
    mut other: impl FnMut(&str) -> Option<String>,
) -> String {
    let escape = escape(dockerfile.trim_start_matches('\u{feff}'));
    let mut found = Found::new(arguments);
    let mut lines: Vec<String> = dockerfile
        .split_inclusive('\n')
        .map(str::to_owned)
        .collect();
    for instruction in instructions(dockerfile) {
        let (name, words, flags) = instruction.words();
        let mut new = BTreeMap::new();
        for (at, word) in words.iter().enumerate().take(flags + 1) {
            let is_flag = at < flags;
            let replaced = match name.as_str() {
                "FROM" if !is_flag => found.values.expand(word).and_then(|image| other(&image)),
                "COPY" | "ADD" if is_flag => word
                    .strip_prefix("--from=")
                    .and_then(|image| other(unquoted(image)))
                    .map(|image| format!("--from={image}")),
                "RUN" if is_flag => word
                    .strip_prefix("--mount=")
                    .and_then(|mount| mounted(mount, &mut other)),
                _ => None,
            };
            // The instruction's name is the first word.
            new.extend(replaced.map(|word| (at + 1, word)));
        }
        if !new.is_empty() {
            replace(&mut lines, instruction.lines.clone(), escape, &new);
        }
        found.take(&instruction);
    }
    lines.concat()
}

fn mounted(mount: &str, other: &mut impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut changed = false;
    let options: Vec<_> = mount
        .split(',')
        .map(|option| {
            let image = option.strip_prefix("from=").map(unquoted);
            match image.and_then(&mut *other) {
                Some(image) => {
                    changed = true;
                    format!("from={image}")
                }
                None => option.to_owned(),
            }
        })
        .collect();
    changed.then(|| format!("--mount={}", options.join(",")))
}

/// Replaces words of an instruction by their numbers, from 0.
fn replace(lines: &mut [String], of: Range<usize>, escape: char, new: &BTreeMap<usize, String>) {
    let mut number = 0;
    for line in lines.get_mut(of).into_iter().flatten() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        let mut changed = String::new();
        let mut rest = line.as_str();
        while let Some(begin) = rest.find(|c: char| !c.is_whitespace() && c != '\u{feff}') {
            let end = rest[begin..].find(char::is_whitespace);
            let end = end.map_or(rest.len(), |length| begin + length);
            let word = &rest[begin..end];
            let is_last = rest[end..].trim().is_empty();
            let own = word
                .strip_suffix(escape)
                .filter(|_| is_last)
                .unwrap_or(word);
            changed.push_str(&rest[..begin]);
            let new = new.get(&number).filter(|_| !own.is_empty());
            changed.push_str(new.map_or(own, String::as_str));
            changed.push_str(&word[own.len()..]);
            number += usize::from(!own.is_empty());
            rest = &rest[end..];
        }
        changed.push_str(rest);
        *line = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_renamed_where_they_are_named_and_nowhere_else() {
        let args = BTreeMap::from([("BASE".to_owned(), "Lib".to_owned())]);
        let arguments = Arguments::new(&args, Some("linux/amd64"), None);
        let other = |name: &str| (name.eq_ignore_ascii_case("lib")).then(|| "x:1".to_owned());
        for (dockerfile, expected) in [
            ("FROM lib", "FROM x:1"),
            (
                "FROM --platform=a/b lib AS lib",
                "FROM --platform=a/b x:1 AS lib",
            ),
            ("ARG BASE=b\nFROM ${BASE}\n", "ARG BASE=b\nFROM x:1\n"),
            ("FROM ${BUILDVARIANT}lib", "FROM x:1"),
            (
                "FROM a\r\nCOPY --from=lib lib lib\r\n",
                "FROM a\r\nCOPY --from=x:1 lib lib\r\n",
            ),
            (
                "from a\ncopy --chown=1 \\\n # --from=lib\n  --from='LIB'\\\n lib lib\nUSER lib",
                "from a\ncopy --chown=1 \\\n # --from=lib\n  --from=x:1\\\n lib lib\nUSER lib",
            ),
            (
                "RUN --mount=type=bind,from=lib,target=/l --mount=from=a run --mount=from=lib",
                "RUN --mount=type=bind,from=x:1,target=/l --mount=from=a run --mount=from=lib",
            ),
            (
                "RUN <<E\nCOPY --from=lib a b\nE\nADD --from=lib a b",
                "RUN <<E\nCOPY --from=lib a b\nE\nADD --from=x:1 a b",
            ),
            ("# escape=`\nFROM `\nlib", "# escape=`\nFROM `\nx:1"),
            ("COPY --from=library a b", "COPY --from=library a b"),
            ("\u{feff}FROM lib\n", "\u{feff}FROM x:1\n"),
        ] {
            assert_eq!(renamed(dockerfile, &arguments, other), expected);
        }
    }
}
