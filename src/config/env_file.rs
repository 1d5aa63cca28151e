//! Files of environment variables: `NAME=VALUE` lines, as `.env` files have them. Values are taken as
//! they are written: nothing is substituted, nothing is run.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The largest file that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// Reads a file; the error is a message for people that quotes no value. Blocks.
pub fn read(path: &Path) -> Result<Vec<(String, String)>, String> {
    let shown = path.display();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("`{shown}` is longer than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| format!("`{shown}` is not UTF-8 text"))?;
    parse(&text).map_err(|error| format!("`{shown}`: {error}"))
}

/// Empty lines and those that begin with `#` are left out, and so are `export` and a comment after an
/// unquoted value. In single quotes everything is literal; in double quotes `\n`, `\"`, `\\` and `\$`
/// are not. A quoted value may have several lines, which end as on Unix whatever the file's do.
pub fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text: &str = &text.replace("\r\n", "\n");
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let number = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let wrong = |what: &str| Err(format!("line {number}: {what}"));
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let Some((name, _)) = line.split_once('=') else {
            return wrong("expected NAME=VALUE");
        };
        let value = &rest[name.len() + 1..];
        let name = name.trim();
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        if !is_name(name) {
            return wrong("expected a name of letters, digits and `_` before the `=`");
        }
        let start = value.trim_start_matches([' ', '\t']);
        let read = match start.chars().next() {
            Some(quote @ ('"' | '\'')) => quoted(&start[1..], quote),
            _ => {
                let (value, after) = value.split_once('\n').unwrap_or((value, ""));
                let value = [" #", "\t#"].iter().fold(value, |value, comment| {
                    value.split_once(comment).map_or(value, |(value, _)| value)
                });
                Some((value.trim().to_owned(), after))
            }
        };
        let Some((value, after)) = read else {
            return wrong("the quote is not closed, or something follows it");
        };
        if value.contains('\0') {
            return wrong("the value contains a NUL character");
        }
        // The last one counts, as in a shell.
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value));
        rest = after;
    }
    Ok(variables)
}

/// Whether every shell takes it as a variable's name.
pub fn is_name(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let digit = text.starts_with(|c: char| c.is_ascii_digit());
    (1..=255).contains(&text.len()) && text.bytes().all(good) && !digit
}

/// Whether every container has it from Cutover.
pub fn is_reserved(name: &str) -> bool {
    name == "PORT" || name.starts_with("CUTOVER_")
}

/// The value up to the closing quote, and the text after its line.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => {
                let rest = &text[at + 1..];
                let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
                let line = line.trim();
                return (line.is_empty() || line.starts_with('#')).then_some((value, after));
            }
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                c @ ('"' | '\\' | '$' | '`') => value.push(c),
                c => value.extend(['\\', c]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_people_write_them() {
        let text = "\u{feff}# a comment\n\nA=1\r\nexport B = two words # comment\nC='it''\n";
        assert!(parse(text).unwrap_err().starts_with("line 5"), "{text}");
        let text = "A=1\r\n export B = two words # why\nC='$HOME \"#\"' # why\nD=\"a\\nb\\\"\\$x\\d\"\n\
                    E=a#b=c\nF=\nG= # none\nH=x\t# why\nI=#1\nKEY=\"-----BEGIN-----\r\nabc\n-----END-----\"\nA=last";
        let all = parse(text).unwrap();
        let expected = [
            ("B", "two words"),
            ("C", "$HOME \"#\""),
            ("D", "a\nb\"$x\\d"),
            ("E", "a#b=c"),
            ("F", ""),
            ("G", ""),
            ("H", "x"),
            ("I", "#1"),
            ("KEY", "-----BEGIN-----\nabc\n-----END-----"),
            ("A", "last"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(all, expected);
    }

    #[test]
    fn mistakes_name_the_line_and_no_value() {
        for (text, line) in [
            ("A=1\nhunter2", 2),
            ("\n\n1A=hunter2", 3),
            ("A=\"hunter2", 1),
            ("A='x'hunter2", 1),
            ("A-B=hunter2", 1),
            ("A=hunter2\0", 1),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}:")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
