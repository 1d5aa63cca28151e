//! A `Procfile`: `NAME: COMMAND` lines in a repository, as Heroku reads them.

use std::collections::BTreeMap;

use super::command::Command;
use crate::ids::ServiceName;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Procfile {
    /// What takes the place of the image's own command.
    pub web: Option<Command>,
    pub others: BTreeMap<ServiceName, Command>,
    /// Runs in the new image before it gets traffic.
    pub release: Option<Command>,
}

/// The error names the line and says what was expected.
pub fn parse(text: &str) -> Result<Procfile, String> {
    let mut found = Procfile::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        // Of a line that ends as on Windows, `lines` leaves no `\r`.
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = format!("line {} of the Procfile", index + 1);
        let (name, command) = match line.split_once(':') {
            Some((name, command)) if !command.trim().is_empty() => {
                (name.trim_end(), command.trim())
            }
            _ => {
                return Err(format!(
                    "{at} is not `NAME: COMMAND`, such as `worker: bin/jobs`"
                ));
            }
        };
        if command.contains(char::is_control) {
            return Err(format!("{at} has a control character in its command"));
        }
        let command = Command::Shell(command.to_owned());
        let before = match name {
            "web" => found.web.replace(command),
            "release" => found.release.replace(command),
            name => {
                let name: ServiceName = name.parse().map_err(|error| format!("{at}: {error}"))?;
                found.others.insert(name, command)
            }
        };
        if before.is_some() {
            return Err(format!(
                "{at} names `{name}` a second time: expected each process once"
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_read_as_people_write_them() {
        let text = "\u{feff}# how it runs\r\nweb: gunicorn app:app -b :$PORT\r\n\r\nworker : bin/jobs\n\
                    release: ./migrate up\nclock:bin/clock";
        let found = parse(text).unwrap();
        let shell = |text: &str| Command::Shell(text.to_owned());
        assert_eq!(found.web, Some(shell("gunicorn app:app -b :$PORT")));
        assert_eq!(found.release, Some(shell("./migrate up")));
        let others: Vec<_> = found.others.iter().map(|(n, c)| (n.as_str(), c)).collect();
        assert_eq!(
            others,
            [
                ("clock", &shell("bin/clock")),
                ("worker", &shell("bin/jobs"))
            ]
        );
    }

    #[test]
    fn a_mistake_names_its_line() {
        for (text, said) in [
            ("web: a\nworker", "line 2 of the Procfile is not"),
            ("web:", "line 1 of the Procfile is not"),
            (
                "a: x\nb: y\na: z",
                "line 3 of the Procfile names `a` a second",
            ),
            ("web: a\nweb: b", "line 2 of the Procfile names `web`"),
            ("Bad_Name: x", "line 1 of the Procfile: `Bad_Name`"),
            ("a: x\u{1b}[2J", "control character"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
