//! Which images a Dockerfile builds on: what it names in FROM, `COPY --from` and `RUN --mount=from`.
//! An image that is renewed under the same name is another input.

use std::collections::{BTreeMap, BTreeSet};

use super::arguments::Arguments;
use super::instructions::{Instruction, assigned, instructions, stage_name, unquoted};
use super::values::Values;

/// The names of the images that the stage `target` needs (absent: the last), as they are written with variables
/// expanded; without stages and `scratch`. `None` if they depend on something that is known only to the builder.
pub(super) fn bases(
    dockerfile: &str,
    arguments: &Arguments<'_>,
    target: Option<&str>,
) -> Option<BTreeSet<String>> {
    Found::of(dockerfile, arguments).needed(target)
}

/// The names of all build arguments that the Dockerfile declares.
pub(super) fn declared(dockerfile: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for instruction in instructions(dockerfile) {
        let (name, words, _) = instruction.words();
        if name == "ARG" {
            let assigned = assigned(&words).into_iter();
            names.extend(assigned.map(|(name, _)| name.to_owned()));
        }
    }
    names
}

/// What is known of the instructions so far.
pub(super) struct Found<'a> {
    /// As configured for the build.
    args: &'a BTreeMap<String, String>,
    /// What is known before the first FROM.
    pub(super) values: Values,
    stages: Vec<Stage>,
}

#[derive(Default)]
struct Stage {
    /// In lower case; empty for one without a name.
    name: String,
    images: BTreeSet<String>,
    /// The places of the earlier ones that it needs.
    stages: BTreeSet<usize>,
    /// It needs an image whose name only the builder knows.
    is_unknown: bool,
}

impl<'a> Found<'a> {
    pub(super) fn new(arguments: &Arguments<'a>) -> Self {
        Self {
            args: arguments.given,
            values: arguments.global.clone(),
            stages: Vec::new(),
        }
    }

    fn of(dockerfile: &str, arguments: &Arguments<'a>) -> Self {
        let mut found = Self::new(arguments);
        for instruction in instructions(dockerfile) {
            found.take(&instruction);
        }
        found
    }

    /// Takes the next instruction.
    pub(super) fn take(&mut self, instruction: &Instruction) {
        let (name, words, flags) = instruction.words();
        let (flags, words) = words.split_at(flags);
        match name.as_str() {
            "ARG" if self.stages.is_empty() => {
                for (name, value) in assigned(words) {
                    self.arg(name, value);
                }
            }
            "FROM" => {
                let image = words.first().and_then(|image| self.values.expand(image));
                let mut stage = Stage::default();
                self.image(image.as_deref(), false, &mut stage);
                stage.name = stage_name(words);
                self.stages.push(stage);
            }
            "COPY" | "ADD" => {
                self.images(flags.iter().filter_map(|flag| flag.strip_prefix("--from=")));
            }
            "RUN" => {
                let mounts = flags
                    .iter()
                    .filter_map(|flag| flag.strip_prefix("--mount="));
                let options = mounts.flat_map(|mount| mount.split(','));
                self.images(options.filter_map(|it| it.strip_prefix("from=")));
            }
            _ => {}
        }
    }

    fn arg(&mut self, name: &str, default: Option<&str>) {
        match (self.args.get(name), default) {
            (Some(value), _) => self.values.set(name, Some(value.clone())),
            (None, Some(default)) => self.values.set(name, self.values.expand(default)),
            // What the builder sets by itself stays.
            (None, None) if self.values.has(name) => {}
            (None, None) => self.values.set(name, Some(String::new())),
        }
    }

    /// What the stage that has begun takes from.
    fn images<'b>(&mut self, names: impl Iterator<Item = &'b str>) {
        let Some(mut stage) = self.stages.pop() else {
            return;
        };
        for name in names {
            self.image(Some(name), true, &mut stage);
        }
        self.stages.push(stage);
    }

    fn image(&self, name: Option<&str>, by_number: bool, of: &mut Stage) {
        let name = name.map(unquoted).filter(|name| !name.is_empty());
        let Some(name) = name.filter(|name| !name.contains('$')) else {
            of.is_unknown = true;
            return;
        };
        match self.stage(&name.to_ascii_lowercase(), by_number) {
            Some(place) => {
                of.stages.insert(place);
            }
            None if name == "scratch" => {}
            None => {
                of.images.insert(name.to_owned());
            }
        }
    }

    fn stage(&self, lower: &str, by_number: bool) -> Option<usize> {
        let named = self.stages.iter().rposition(|stage| stage.name == lower);
        let number = || lower.parse().ok().filter(|it| *it < self.stages.len());
        named.or_else(|| by_number.then(number)?)
    }

    fn needed(self, target: Option<&str>) -> Option<BTreeSet<String>> {
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
            if stage.is_unknown {
                return None;
            }
            images.extend(stage.images.iter().cloned());
            next.extend(&stage.stages);
        }
        Some(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORM: &str = "linux/amd64";

    fn needed(dockerfile: &str, target: Option<&str>) -> Option<Vec<String>> {
        let args = BTreeMap::from([("TAG".to_owned(), "9".to_owned())]);
        let arguments = Arguments::new(&args, Some(PLATFORM), None);
        Some(bases(dockerfile, &arguments, target)?.into_iter().collect())
    }

    /// Of all its stages.
    fn of(dockerfile: &str) -> Option<Vec<String>> {
        let stages = (0..4).map(|number| needed(dockerfile, Some(&number.to_string())));
        let all: Option<Vec<_>> = stages.collect();
        let all: BTreeSet<_> = all?.into_iter().flatten().collect();
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
            assert_eq!(needed(dockerfile, target).unwrap(), expected, "{target:?}");
        }
    }

    #[test]
    fn what_only_the_builder_knows_matters_to_the_stages_that_need_it() {
        let dockerfile = "ARG V=1.2\nFROM a AS one\nFROM a:${V%.*} AS two\nFROM b\nCOPY --from=two / /\n\
                          FROM one\nFROM two\n";
        for (target, expected) in [
            ("one", Some("a")),
            ("two", None),
            ("2", None),
            ("3", Some("a")),
            ("4", None),
        ] {
            let found = needed(dockerfile, Some(target));
            assert_eq!(
                found.map(|it| it.join(" ")).as_deref(),
                expected,
                "{target}"
            );
        }
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
            // Those of the platforms, declared again or not, and names that only look like them.
            (
                "ARG TARGETARCH\nFROM a-$TARGETARCH\nFROM b-${TARGETOS}${TARGETVARIANT:+-v}",
                &["a-amd64", "b-linux"],
            ),
            ("FROM a:${TARGET_ENV:-2}\nFROM b${BUILDER}", &["a:2", "b"]),
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
            "FROM a-$TARGETSTAGE",
            "ARG V=${TARGETSTAGE}\nFROM a-$V",
            "ARG V=1.2\nFROM a:${V%.*}",
            "FROM a:${",
            "FROM",
            "FROM a\nCOPY --from=$X /a /",
        ] {
            assert_eq!(of(dockerfile), None, "{dockerfile}");
        }
    }
}
