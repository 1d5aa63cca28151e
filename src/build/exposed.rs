//! The port that a Dockerfile exposes.

use super::instructions::{assigned, instructions, stage_name};
use super::values::Values;

/// What is known of a stage of a Dockerfile.
#[derive(Default, Clone)]
struct Stage {
    /// In lower case; empty for one without a name.
    name: String,
    values: Values,
    port: Option<u16>,
}

/// The first port of the last stage, which is the one that runs. It may be written as a variable that `ENV` or
/// `ARG` gives a value.
pub fn exposed(dockerfile: &str) -> Option<u16> {
    // What comes before the first stage a stage has to ask for.
    let (mut global, mut stages) = (Values::default(), Vec::<Stage>::new());
    for instruction in instructions(dockerfile) {
        let (name, words, flags) = instruction.words();
        let words = &words[flags..];
        match (name.as_str(), stages.last_mut()) {
            ("FROM", _) => {
                let image = words.first().and_then(|image| global.expand(image));
                let image = image.unwrap_or_default().to_ascii_lowercase();
                let is_meant = |stage: &&Stage| !stage.name.is_empty() && stage.name == image;
                let mut stage = stages.iter().rfind(is_meant).cloned().unwrap_or_default();
                stage.name = stage_name(words);
                stages.push(stage);
            }
            ("ARG", None) => {
                for (name, value) in assigned(words) {
                    if let Some(value) = value {
                        global.set(name, global.expand(value));
                    }
                }
            }
            // As it was written once.
            ("ENV", Some(stage)) if words.len() == 2 && !words[0].contains('=') => {
                stage.values.set(words[0], stage.values.expand(words[1]));
            }
            ("ENV", Some(stage)) => {
                for (name, value) in assigned(words) {
                    let value = value.and_then(|value| stage.values.expand(value));
                    stage.values.set(name, value);
                }
            }
            ("ARG", Some(stage)) => {
                for (name, value) in assigned(words) {
                    match value {
                        // A build may give it another value, but mostly does not.
                        _ if stage.values.has(name) => {}
                        Some(value) => stage.values.set(name, stage.values.expand(value)),
                        None => stage.values.take(name, &global),
                    }
                }
            }
            ("EXPOSE", Some(stage)) => {
                let text = words.first().and_then(|word| stage.values.expand(word));
                let text = text.unwrap_or_default();
                let given = text.strip_suffix("/tcp").unwrap_or(&text).parse().ok();
                stage.port = stage.port.or(given);
            }
            _ => {}
        }
    }
    stages.pop()?.port.filter(|port| *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_the_first_of_the_stage_that_runs() {
        for (text, found) in [
            ("FROM a\nEXPOSE 3000/tcp 9229\nexpose 4000\n", Some(3000)),
            ("FROM a AS build\nEXPOSE 1\nFROM b\nCMD x\n", None),
            ("FROM a\nEXPOSE $PORT\n", None),
            ("FROM a\nENV PORT=3000 A=b\nEXPOSE $PORT\n", Some(3000)),
            (
                "FROM a\nENV A=b \\\n  PORT=\"3000\"\nEXPOSE ${PORT}/tcp\n",
                Some(3000),
            ),
            ("FROM a\nENV PORT 3000\nEXPOSE $PORT\n", Some(3000)),
            (
                "FROM a\nARG PORT=3000\nENV P=$PORT\nEXPOSE $P\n",
                Some(3000),
            ),
            (
                "ARG PORT=3000\nFROM a\nARG PORT\nEXPOSE $PORT\n",
                Some(3000),
            ),
            ("ARG PORT=3000\nFROM a\nEXPOSE $PORT\n", None),
            ("FROM a\nEXPOSE ${PORT:-3000}\n", Some(3000)),
            (
                "FROM a AS base\nENV PORT=3000\nFROM base\nEXPOSE $PORT\n",
                Some(3000),
            ),
            (
                "FROM a AS base\nEXPOSE 3000\nFROM --platform=x base AS b\nCMD x\n",
                Some(3000),
            ),
            // Comments within an instruction, another escape, what only looks like instructions.
            (
                "FROM a\nENV \\\n# of the app\n  PORT=3000\nEXPOSE $PORT\n",
                Some(3000),
            ),
            ("# escape=`\nFROM a\nEXPOSE `\n 3000\n", Some(3000)),
            ("FROM a\nRUN <<E\nEXPOSE 1\nE\nEXPOSE 3000\n", Some(3000)),
            ("ARG P=1 Q=3\nFROM a\nARG P Q\nEXPOSE ${Q}000\n", Some(3000)),
            ("FROM a\nENV A=30 B=00\nEXPOSE $A$B\n", Some(3000)),
        ] {
            assert_eq!(exposed(text), found, "{text}");
        }
    }
}
