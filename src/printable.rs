//! Text from outside (a commit, a program's output, a forge) before anybody sees it.

use std::borrow::Cow;
use std::ops::Range;

/// The text without what a terminal or a browser would obey. Escape sequences (colours, links, titles,
/// character sets) are removed; other control characters, and those that change the direction in which
/// text runs, are replaced. Line feeds and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text
        .chars()
        .all(|c| matches!(c, '\n' | '\t') || !is_obeyed(c))
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let sequence = sequence(rest);
        if sequence > 0 {
            rest = &rest[sequence..];
            continue;
        }
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' | '\t' => out.push(c),
            '\r' if rest.is_empty() || rest.starts_with('\n') => {}
            c if is_obeyed(c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// At most so many characters, the last of which says that more was left out.
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => text.chars().take(most - 1).chain(['…']).collect(),
    }
}

/// Controls, and what Unicode has for the direction of text and for the ends of lines.
pub fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The length of the escape sequence at the beginning of the text, in bytes; 0 if there is none.
fn sequence(text: &str) -> usize {
    let mut chars = text.chars();
    let kind = match chars.next() {
        Some('\u{1b}') => match chars.next() {
            Some('[') => Kind::Control,
            Some(']' | 'P' | 'X' | '^' | '_') => Kind::Text,
            Some(' '..='/') => Kind::Set,
            Some('0'..='~') => return 2,
            _ => return 0,
        },
        Some('\u{9b}') => Kind::Control,
        Some('\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => Kind::Text,
        _ => return 0,
    };
    // Either way, the introduction takes two bytes.
    let body = &text[2..];
    2 + match kind {
        Kind::Control => control(body, 0x20..0x40),
        Kind::Set => control(body, 0x20..0x30),
        Kind::Text => ended(body),
    }
}

enum Kind {
    /// Parameters, then one final character.
    Control,
    /// Such as `ESC ( B`, which chooses a character set.
    Set,
    /// A text up to a terminator: a link, a title.
    Text,
}

/// The length of a sequence's parameters and final character.
fn control(body: &str, parameters: Range<u8>) -> usize {
    let inner = body
        .bytes()
        .take_while(|byte| parameters.contains(byte))
        .count();
    let has_final = body
        .as_bytes()
        .get(inner)
        .is_some_and(|byte| (0x30..0x7f).contains(byte));
    inner + usize::from(has_final)
}

/// The length of a text up to and with its terminator. Without one in the same line, the text is shown:
/// nobody shall hide the rest of a line.
fn ended(body: &str) -> usize {
    let line = body.split('\n').next().unwrap_or_default();
    let ends = ["\u{7}", "\u{1b}\\", "\u{9c}"];
    let ends = ends
        .iter()
        .filter_map(|end| Some(line.find(end)? + end.len()));
    ends.min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_says_so() {
        assert_eq!(cut("ääääh", 5), "ääääh");
        assert_eq!(cut("ääääh", 4), "äää…");
    }

    #[test]
    fn nothing_that_is_obeyed_gets_through() {
        for (text, expected) in [
            ("plain äöü 日本 👩‍👩‍👧\n\ttext", "plain äöü 日本 👩‍👩‍👧\n\ttext"),
            ("\u{1b}[1;31mred\u{1b}[0m \u{1b}[?25lx\u{1b}[2K", "red x"),
            (
                "\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\!",
                "link!",
            ),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}P1$r\u{9c}a\u{9d}0;t\u{7}b\u{9b}31mc", "abc"),
            ("\u{1b}(Bg\u{1b}7h\u{1b}#8i\u{1b}cj", "ghij"),
            (
                "bell\u{7} back\u{8} null\0 del\u{7f}",
                "bell\u{fffd} back\u{fffd} null\u{fffd} del\u{fffd}",
            ),
            (
                "user\u{202e}gnp.exe \u{2066}x\u{2069}\u{200f}",
                "user\u{fffd}gnp.exe \u{fffd}x\u{fffd}\u{fffd}",
            ),
            ("one\r\ntwo\r", "one\ntwo"),
            ("hidden\rshown", "hidden\u{fffd}shown"),
            // What never ends hides nothing.
            ("\u{1b}]0;the rest\nnext", "0;the rest\nnext"),
            ("\u{1b}[31", ""),
            ("\u{1b}", "\u{fffd}"),
            ("\u{1b}ä\u{1b}\u{1b}[0mx", "\u{fffd}ä\u{fffd}x"),
        ] {
            assert_eq!(printable(text), expected, "{text:?}");
        }
        // Whatever comes, nothing is left over.
        let bits = [
            "\u{1b}", "]", "[", "0", ";", "m", "\u{7}", "\\", "\u{9b}", "\u{202e}", "ä", "(", "\n",
        ];
        for seed in 0u32..5000 {
            let pick = |at: u32| {
                bits[(seed.wrapping_mul(2_654_435_761).rotate_left(at * 5) % 13) as usize]
            };
            let text: String = (0..8).map(pick).collect();
            let out = printable(&text);
            assert!(
                out.chars()
                    .all(|c| matches!(c, '\n' | '\t') || !is_obeyed(c)),
                "{text:?}"
            );
        }
    }
}
