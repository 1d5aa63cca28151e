//! Which images a Dockerfile builds on: what it names in FROM, `COPY --from` and `RUN --mount=from`.
//! An image that is renewed under the same name is another input.

use std::collections::{BTreeMap, BTreeSet};

/// The names of the images, as they are written with variables expanded; without stages and `scratch`.
/// `None` if they depend on something that is known only to the builder.
pub(super) fn bases(dockerfile: &str, args: &BTreeMap<String, String>) -> Option<BTreeSet<String>> {
    let mut found = Found {
        args,
        values: BTreeMap::new(),
        stages: Vec::new(),
        images: BTreeSet::new(),
    };
    for line in instructions(dockerfile) {
        found.take(&line)?;
    }
    Some(found.images)
}

/// The names of all build arguments that the Dockerfile declares.
pub(super) fn declared(dockerfile: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in instructions(dockerfile) {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        if name.eq_ignore_ascii_case("ARG") {
            let words = rest.split_whitespace();
            names.extend(words.map(|word| word.split('=').next().unwrap_or(word).to_owned()));
        }
    }
    names
}

struct Found<'a> {
    /// As configured for the build.
    args: &'a BTreeMap<String, String>,
    /// The ARGs before the first FROM.
    values: BTreeMap<String, String>,
    /// The names of the stages so far, in lower case; empty for one without a name.
    stages: Vec<String>,
    images: BTreeSet<String>,
}

impl Found<'_> {
    fn take(&mut self, line: &str) -> Option<()> {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let flags = words.iter().take_while(|word| word.starts_with("--"));
        match name.to_ascii_uppercase().as_str() {
            "ARG" if self.stages.is_empty() => return words.iter().try_for_each(|it| self.arg(it)),
            "FROM" => {
                let words = &words[flags.count()..];
                let image = self.expand(words.first()?)?;
                self.image(&image, false)?;
                let named = matches!(words, [_, r#as, _, ..] if r#as.eq_ignore_ascii_case("as"));
                let stage = if named {
                    words[2].to_ascii_lowercase()
                } else {
                    String::new()
                };
                self.stages.push(stage);
            }
            "COPY" | "ADD" => {
                let flags: Vec<_> = flags
                    .filter_map(|flag| flag.strip_prefix("--from="))
                    .collect();
                flags
                    .into_iter()
                    .try_for_each(|image| self.image(image, true))?;
            }
            "RUN" => {
                let mounts = flags.filter_map(|flag| flag.strip_prefix("--mount="));
                let options = mounts.flat_map(|mount| mount.split(','));
                let from: Vec<_> = options.filter_map(|it| it.strip_prefix("from=")).collect();
                from.into_iter()
                    .try_for_each(|image| self.image(image, true))?;
            }
            _ => {}
        }
        Some(())
    }

    fn arg(&mut self, word: &str) -> Option<()> {
        let (name, default) = word.split_once('=').unwrap_or((word, ""));
        let value = match self.args.get(name) {
            Some(value) => value.clone(),
            None => self.expand(default.trim_matches(['"', '\'']))?,
        };
        self.values.insert(name.to_owned(), value);
        Some(())
    }

    fn image(&mut self, name: &str, by_number: bool) -> Option<()> {
        let name = name.trim_matches(['"', '\'']);
        if name.is_empty() || name.contains('$') {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        let number = name
            .parse()
            .is_ok_and(|number: usize| number < self.stages.len());
        let is_stage = self.stages.contains(&lower) || by_number && number;
        if !is_stage && name != "scratch" {
            self.images.insert(name.to_owned());
        }
        Some(())
    }

    /// Replaces `$NAME`, `${NAME}` and the forms with `:-`, `-`, `:+` and `+`. `None` for what only the
    /// builder knows, such as `$TARGETARCH`.
    fn expand(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let (inner, end) = match after.strip_prefix('{') {
                Some(inner) => inner.split_once('}')?,
                None => after.split_at(name_length(after)),
            };
            let (name, form) = inner.split_at(name_length(inner));
            let value = match self.values.get(name) {
                Some(value) => value.as_str(),
                None if name.is_empty() || is_platform(name) => return None,
                None => "",
            };
            let declared = self.values.contains_key(name);
            if let Some(default) = form.strip_prefix(":-") {
                out.push_str(if value.is_empty() { default } else { value });
            } else if let Some(other) = form.strip_prefix(":+") {
                out.push_str(if value.is_empty() { "" } else { other });
            } else if let Some(default) = form.strip_prefix('-') {
                out.push_str(if declared { value } else { default });
            } else if let Some(other) = form.strip_prefix('+') {
                out.push_str(if declared { other } else { "" });
            } else if form.is_empty() {
                out.push_str(value);
            } else {
                return None;
            }
            rest = end;
        }
        out.push_str(rest);
        // A default may contain another variable.
        (!out.contains('$')).then_some(out)
    }
}

fn name_length(text: &str) -> usize {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.bytes().take_while(is_name).count()
}

/// Arguments that the builder sets by itself.
fn is_platform(name: &str) -> bool {
    ["TARGET", "BUILD"]
        .iter()
        .any(|side| name.starts_with(side))
}

/// The Dockerfile's instructions, each in one line, without comments and here-documents.
fn instructions(dockerfile: &str) -> Vec<String> {
    let text = dockerfile.trim_start_matches('\u{feff}');
    let escape = escape(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let mut whole = String::new();
        while let Some(line) = lines.get(at) {
            at += 1;
            let line = line.trim();
            // Comments and empty lines do not end an instruction.
            if line.starts_with('#') || (line.is_empty() && !whole.is_empty()) {
                continue;
            }
            match line.strip_suffix(escape) {
                Some(part) => whole.push_str(part),
                None => {
                    whole.push_str(line);
                    break;
                }
            }
        }
        for end in here_documents(&whole) {
            let is_end = |line: &&str| line.trim_start_matches('\t') == end;
            // Without its end it is something else that looks like one.
            if let Some(length) = lines[at..].iter().position(is_end) {
                at += length + 1;
            }
        }
        if !whole.is_empty() {
            all.push(whole);
        }
    }
    all
}

/// `\`, unless a directive at the very beginning says otherwise.
fn escape(text: &str) -> char {
    let directives = text
        .lines()
        .map_while(|line| line.trim().strip_prefix('#')?.split_once('='));
    let mut escapes = directives.filter(|(key, _)| key.trim().eq_ignore_ascii_case("escape"));
    match escapes.next() {
        Some((_, value)) if value.trim() == "`" => '`',
        _ => '\\',
    }
}

/// The words that end the here-documents of an instruction.
fn here_documents(line: &str) -> Vec<&str> {
    let starts = |word: &str| {
        ["RUN", "COPY", "ADD"]
            .iter()
            .any(|it| word.eq_ignore_ascii_case(it))
    };
    if !line.split_whitespace().next().is_some_and(starts) {
        return Vec::new();
    }
    let mut ends = Vec::new();
    let mut rest = line;
    while let Some((_, after)) = rest.split_once("<<") {
        let word = after
            .trim_start_matches('-')
            .trim_start_matches(['"', '\'']);
        let length = name_length(word);
        if length > 0 && !after.starts_with('<') {
            ends.push(&word[..length]);
        }
        rest = after.trim_start_matches('<');
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dockerfile: &str) -> Option<Vec<String>> {
        let args = BTreeMap::from([("TAG".to_owned(), "9".to_owned())]);
        bases(dockerfile, &args).map(|found| found.into_iter().collect())
    }

    #[test]
    fn images_are_found_wherever_they_are_named() {
        for (dockerfile, expected) in [
            ("FROM scratch", &[][..]),
            ("from alpine", &["alpine"]),
            (
                "FROM --platform=$BUILDPLATFORM a:1 AS x\nFROM x\nCOPY --from=X /a /a",
                &["a:1"],
            ),
            (
                "FROM a\nFROM b\nCOPY --from=0 /a /\nCOPY --from=c:2 /a /",
                &["a", "b", "c:2"],
            ),
            (
                "FROM a\nRUN --mount=type=bind,from=tools,target=/t make",
                &["a", "tools"],
            ),
            // Comments, continued lines, another escape.
            ("# FROM no\nFROM \\\n  # no\n\n  a\n", &["a"]),
            ("# escape=`\nFROM `\na", &["a"]),
            ("FROM a\nRUN echo \\\nFROM b", &["a"]),
            // Arguments: the default, the configured value, the forms with a default.
            ("ARG BASE=a:1\nFROM $BASE", &["a:1"]),
            ("ARG TAG=1\nFROM a:${TAG}", &["a:9"]),
            ("ARG V\nFROM a:${V:-2}", &["a:2"]),
            ("FROM a:${V-3}\nFROM b${V:+x}", &["a:3", "b"]),
            ("ARG A=x B=\"$A:1\"\nFROM ${B}", &["x:1"]),
            // What is in a here-document is no instruction.
            ("FROM a\nRUN <<EOF\nFROM b\nEOF\nFROM c", &["a", "c"]),
            (
                "FROM a\nCOPY <<-'E1' <<\"E2\" /\n\tFROM b\n\tE1\nFROM x\nE2\nFROM c",
                &["a", "c"],
            ),
            (
                "FROM a\nRUN cat <<<word\nRUN [ $((1<<N)) ]\nFROM c",
                &["a", "c"],
            ),
        ] {
            let expected: Vec<_> = expected.iter().map(|it| (*it).to_owned()).collect();
            assert_eq!(of(dockerfile), Some(expected), "{dockerfile}");
        }
    }

    #[test]
    fn arguments_are_found_wherever_they_are_declared() {
        let dockerfile = "ARG A=1 B\nFROM x\narg \\\n  C=\"2\"\nRUN <<E\nARG D\nE\n# ARG E\n";
        let found: Vec<_> = declared(dockerfile).into_iter().collect();
        assert_eq!(found, ["A", "B", "C"]);
    }

    #[test]
    fn what_only_the_builder_knows_is_not_guessed() {
        for dockerfile in [
            "FROM a-$TARGETARCH",
            "ARG V=1.2\nFROM a:${V%.*}",
            "FROM a:${",
            "FROM",
            "FROM a\nCOPY --from=$X /a /",
        ] {
            assert_eq!(of(dockerfile), None, "{dockerfile}");
        }
    }
}
