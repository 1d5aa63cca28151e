//! A command that runs in a container.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::file::Node;
use super::values::line;

/// Either way the image's entry point is left out: what is written is what runs. Stored with a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Command {
    /// A line for `/bin/sh -c` of the image.
    Shell(String),
    /// A program and its arguments.
    Program(Vec<String>),
}

impl Command {
    pub fn argv(&self) -> Vec<String> {
        match self {
            Command::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.clone()],
            Command::Program(argv) => argv.clone(),
        }
    }
}

/// As a person would type it.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Shell(line) => f.write_str(line),
            Command::Program(argv) => {
                let words: Vec<_> = argv.iter().map(|word| quoted(word)).collect();
                f.write_str(&words.join(" "))
            }
        }
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.escape_debug()),
    }
}

pub(super) fn command(node: Node<'_>) -> Option<Command> {
    const EXPECTED: &str = "a line for the image's shell such as \"bin/jobs --all\", or a program and \
                            its arguments such as [\"bin/jobs\", \"--all\"]";
    match node.value.get_ref() {
        DeValue::String(_) => line(node).map(Command::Shell),
        DeValue::Array(_) => {
            let word = |node: Node<'_>| match node.str(EXPECTED)? {
                text if text.contains('\0') => node.wrong_unshown(EXPECTED),
                text => Some(text.to_owned()),
            };
            let words = node.array(EXPECTED)?.into_iter().map(word);
            let argv: Vec<String> = words.collect::<Option<_>>()?;
            match argv.first() {
                Some(program) if !program.is_empty() => Some(Command::Program(argv)),
                Some(_) => node.report(format!(
                    "`{}` begins with an empty text: expected {EXPECTED}",
                    node.path
                )),
                None => node.report(format!("`{}` is empty: expected {EXPECTED}", node.path)),
            }
        }
        _ => node.wrong(EXPECTED),
    }
}
