//! Which images a Dockerfile builds on: what it names in FROM, `COPY --from` and `RUN --mount=from`.
//! An image that is renewed under the same name is another input.

use std::collections::{BTreeMap, BTreeSet};

use super::instructions::{Instruction, instructions, name_length};

/// The names of the images that the stage `target` needs (absent: the last), as they are written with variables
/// expanded; without stages and `scratch`. `None` if they depend on something that is known only to the builder.
pub(super) fn bases(
    dockerfile: &str,
    args: &BTreeMap<String, String>,
    target: Option<&str>,
) -> Option<BTreeSet<String>> {
    let mut found = Found::new(args);
    for instruction in instructions(dockerfile) {
        found.take(&instruction)?;
    }
    Some(found.needed(target))
}

/// The names of all build arguments that the Dockerfile declares.
pub(super) fn declared(dockerfile: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for instruction in instructions(dockerfile) {
        let (name, words, _) = instruction.words();
        if name == "ARG" {
            let words = words.into_iter();
            names.extend(words.map(|word| word.split('=').next().unwrap_or(word).to_owned()));
        }
    }
    names
}

/// What is known of the instructions so far.
pub(super) struct Found<'a> {
    /// As configured for the build.
    args: &'a BTreeMap<String, String>,
    /// The ARGs before the first FROM.
    values: BTreeMap<String, String>,
    stages: Vec<Stage>,
}

#[derive(Default)]
struct Stage {
    /// In lower case; empty for one without a name.
    name: String,
    images: BTreeSet<String>,
    /// The places of the earlier ones that it needs.
    stages: BTreeSet<usize>,
}

impl<'a> Found<'a> {
    pub(super) fn new(args: &'a BTreeMap<String, String>) -> Self {
        Self {
            args,
            values: BTreeMap::new(),
            stages: Vec::new(),
        }
    }

    /// Takes the next instruction. `None`: only the builder knows which image it names.
    pub(super) fn take(&mut self, instruction: &Instruction) -> Option<()> {
        let (name, words, flags) = instruction.words();
        let (flags, words) = words.split_at(flags);
        match name.as_str() {
            "ARG" if self.stages.is_empty() => return words.iter().try_for_each(|it| self.arg(it)),
            "FROM" => {
                let image = self.expand(words.first()?)?;
                let named = matches!(words, [_, r#as, _, ..] if r#as.eq_ignore_ascii_case("as"));
                let mut stage = Stage::default();
                self.image(&image, false, &mut stage)?;
                if named {
                    stage.name = words[2].to_ascii_lowercase();
                }
                self.stages.push(stage);
            }
            "COPY" | "ADD" => {
                let images = flags.iter().filter_map(|flag| flag.strip_prefix("--from="));
                self.images(images)?;
            }
            "RUN" => {
                let mounts = flags
                    .iter()
                    .filter_map(|flag| flag.strip_prefix("--mount="));
                let options = mounts.flat_map(|mount| mount.split(','));
                self.images(options.filter_map(|it| it.strip_prefix("from=")))?;
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

    /// What the stage that has begun takes from.
    fn images<'b>(&mut self, mut names: impl Iterator<Item = &'b str>) -> Option<()> {
        let Some(mut stage) = self.stages.pop() else {
            return Some(());
        };
        let known = names.try_for_each(|name| self.image(name, true, &mut stage));
        self.stages.push(stage);
        known
    }

    fn image(&self, name: &str, by_number: bool, of: &mut Stage) -> Option<()> {
        let name = name.trim_matches(['"', '\'']);
        if name.is_empty() || name.contains('$') {
            return None;
        }
        let lower = name.to_ascii_lowercase();
        match self.stage(&lower, by_number) {
            Some(place) => {
                of.stages.insert(place);
            }
            None if name == "scratch" => {}
            None => {
                of.images.insert(name.to_owned());
            }
        }
        Some(())
    }

    fn stage(&self, lower: &str, by_number: bool) -> Option<usize> {
        let named = self.stages.iter().rposition(|stage| stage.name == lower);
        let number = || lower.parse().ok().filter(|it| *it < self.stages.len());
        named.or_else(|| by_number.then(number)?)
    }

    fn needed(self, target: Option<&str>) -> BTreeSet<String> {
        let target = target.map(str::to_ascii_lowercase);
        let place = match &target {
            Some(name) => self.stage(name, true),
            None => self.stages.len().checked_sub(1),
        };
        let mut images = BTreeSet::new();
        let mut next: BTreeSet<usize> = place.into_iter().collect();
        // A stage needs only earlier ones.
        while let Some(place) = next.pop_last() {
            let stage = &self.stages[place];
            images.extend(stage.images.iter().cloned());
            next.extend(&stage.stages);
        }
        images
    }

    /// Replaces `$NAME`, `${NAME}` and the forms with `:-`, `-`, `:+` and `+`. `None` for what only the
    /// builder knows, such as `$TARGETARCH`.
    pub(super) fn expand(&self, text: &str) -> Option<String> {
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

/// Arguments that the builder sets by itself.
fn is_platform(name: &str) -> bool {
    ["TARGET", "BUILD"]
        .iter()
        .any(|side| name.starts_with(side))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dockerfile: &str) -> Option<Vec<String>> {
        let args = BTreeMap::from([("TAG".to_owned(), "9".to_owned())]);
        let mut found = Found::new(&args);
        for instruction in instructions(dockerfile) {
            found.take(&instruction)?;
        }
        let all: BTreeSet<_> = found.stages.into_iter().flat_map(|it| it.images).collect();
        Some(all.into_iter().collect())
    }

    #[test]
    fn only_what_the_stage_needs_counts() {
        let dockerfile = "FROM a AS one\nFROM b AS two\nCOPY --from=t /t /\nFROM c\nCOPY --from=ONE /a /\n\
                          RUN --mount=from=1,target=/x true\nFROM one AS dev\nCOPY --from=d /d /\nFROM one\n";
        for (target, expected) in [
            (None, &["a"][..]),
            (Some("one"), &["a"]),
            (Some("TWO"), &["b", "t"]),
            (Some("2"), &["a", "b", "c", "t"]),
            (Some("dev"), &["a", "d"]),
            (Some("gone"), &[]),
        ] {
            let found = bases(dockerfile, &BTreeMap::new(), target).unwrap();
            assert_eq!(
                found.into_iter().collect::<Vec<_>>(),
                expected,
                "{target:?}"
            );
        }
        assert!(bases("FROM a\nFROM $TARGETARCH\n", &BTreeMap::new(), Some("0")).is_none());
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
