//! The syntax errors of deploy.toml that are mistakes of their own: one open quote or bracket makes a
//! parser stumble over everything that follows.

use toml::de::{DeTable, Error};

/// As many are reported.
const MOST: usize = 20;

/// A key that is there twice, which leaves the rest of the text readable.
pub(super) fn is_duplicate(error: &Error) -> bool {
    error.message() == "duplicate key"
}

/// Where each mistake is, as a byte offset, and what it is. `errors` are those of the text as a whole.
pub(super) fn mistakes(text: &str, errors: &[Error]) -> Vec<(usize, String)> {
    let Some(first) = first(errors) else {
        return errors.iter().map(placed).collect();
    };
    // What follows the first one may be duplicate only because of it.
    let duplicates = errors.iter().filter(|error| is_duplicate(error));
    let before = duplicates.map(placed).filter(|(at, _)| *at < first.0);
    let mut found: Vec<_> = before.collect();
    let mut text = text.to_owned();
    let mut next = Some(first);
    let mut last = None;
    while let Some((at, message)) = next.filter(|_| found.len() < MOST) {
        let line = text[..at].matches('\n').count();
        // Probably still the same mistake.
        if last.is_some_and(|last| line <= last + 1) {
            break;
        }
        last = Some(line);
        found.push((at, message));
        text = without_line(&text, at);
        next = self::first(&DeTable::parse_recoverable(&text).1);
    }
    found
}

fn first(errors: &[Error]) -> Option<(usize, String)> {
    let errors = errors.iter().filter(|error| !is_duplicate(error));
    errors.map(placed).min_by_key(|(at, _)| *at)
}

fn placed(error: &Error) -> (usize, String) {
    let at = error.span().map_or(0, |span| span.start);
    (at, error.message().to_owned())
}

/// The text with spaces in place of the line at `offset`.
fn without_line(text: &str, offset: usize) -> String {
    let start = text[..offset].rfind('\n').map_or(0, |at| at + 1);
    let end = text[offset..]
        .find('\n')
        .map_or(text.len(), |at| offset + at);
    let blank = " ".repeat(end - start);
    [&text[..start], &blank, &text[end..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<usize> {
        let (_, errors) = DeTable::parse_recoverable(text);
        let found = mistakes(text, &errors).into_iter();
        found
            .map(|(at, _)| text[..at].matches('\n').count() + 1)
            .collect()
    }

    #[test]
    fn an_open_quote_or_bracket_is_one_mistake() {
        let example = include_str!("../../deploy.toml.example");
        assert!(lines(example).is_empty());
        for (whole, open) in [
            ("\"127.0.0.1:9000\"", "\"127.0.0.1:9000"),
            ("\"127.0.0.1:9000\"", "\"\"\"127.0.0.1:9000"),
            ("\"127.0.0.1:9000\"", "['127.0.0.1:9000'"),
            ("\"127.0.0.1:9000\"", "{ a = 1"),
            ("[apps.hello]", "[apps.hello"),
            ("\"127.0.0.1:9000\"", "127.0.0.1:9000"),
        ] {
            assert!(example.contains(whole));
            let text = example.replacen(whole, open, 1);
            assert_eq!(lines(&text).len(), 1, "{open}");
        }
    }

    #[test]
    fn mistakes_in_different_places_are_all_found() {
        let text = "a = \"x\nb = 1\nc = 2\n[d\ne = 1\nb = 2\nf = [1, 2]\n\ng == 1\n";
        assert_eq!(lines(text), [1, 4, 9]);
        assert_eq!(lines("a = 1\na = 2\nb = 1\nb = 2\n"), [2, 4]);
    }
}
