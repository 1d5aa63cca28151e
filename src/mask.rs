//! Hides secret values in what programs print: as they are, in base64, in URLs and in JSON.

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// In bytes. A shorter value, or form of one, would also be found where it is none.
const SHORTEST: usize = 8;
const SHOWN: &str = "***";

/// As browsers and most libraries escape it.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// What begins the note at the end of a line of which not all is kept.
pub const CUT: char = '…';

/// What to hide. Not `Debug`, so that it cannot be logged.
#[derive(Default)]
pub struct Mask(Option<Values>);

struct Values {
    found: AhoCorasick,
    forms: Vec<String>,
    /// Those in base64.
    encoded: Vec<String>,
}

impl Mask {
    pub fn of<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> Self {
        let (mut all, mut encoded) = (Vec::new(), Vec::new());
        for value in values {
            forms(value.as_ref(), &mut all, &mut encoded);
        }
        encoded.retain(|form: &String| form.len() >= SHORTEST);
        all.extend(encoded.iter().cloned());
        all.retain(|form| form.len() >= SHORTEST);
        all.sort();
        all.dedup();
        if all.is_empty() {
            return Self(None);
        }
        // Of two that begin at the same place, the longer one.
        let mut builder = AhoCorasick::builder();
        let found = builder.match_kind(MatchKind::LeftmostLongest).build(&all);
        Self(found.ok().map(|found| Values {
            found,
            forms: all,
            encoded,
        }))
    }

    pub fn hide(&self, text: String) -> String {
        let Some(values) = &self.0 else { return text };
        let text = match values.found.is_match(&text) {
            true => {
                let shown = vec![SHOWN; values.found.patterns_len()];
                values.found.replace_all(&text, &shown)
            }
            false => text,
        };
        let part = values.begun(&text).or_else(|| values.wrapped(&text));
        match part {
            Some((begin, end)) => format!("{}{SHOWN}{}", &text[..begin], &text[end..]),
            None => text,
        }
    }

    pub fn hide_all(&self, lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| self.hide(line)).collect()
    }
}

impl Values {
    /// Where a part of a value's base64 stands that was broken into lines, which end with it, with its padding or with
    /// a quote: one from its midst, its beginning or its end.
    fn wrapped(&self, text: &str) -> Option<(usize, usize)> {
        let is_other = |c: char| !c.is_ascii_alphanumeric() && !"+/-_".contains(c);
        let kept = text.trim_end_matches(is_other);
        let word = kept.rsplit(is_other).next()?;
        let begin = kept.len() - word.len();
        // Without a capital it is an ordinary word.
        if word.len() < SHORTEST || !word.contains(|c: char| c.is_ascii_uppercase()) {
            return None;
        }
        let parts = self.encoded.iter().filter_map(|form| {
            if form.contains(word) {
                return Some((0, word.len()));
            }
            let longest = word.len().min(form.len());
            let mut lengths = (SHORTEST..=longest).rev();
            let ends = lengths.find(|length| word.ends_with(&form[..*length]));
            if let Some(length) = ends {
                return Some((word.len() - length, word.len()));
            }
            let mut lengths = (SHORTEST..=longest).rev();
            let begins = lengths.find(|length| word.starts_with(&form[form.len() - length..]));
            begins.map(|length| (0, length))
        });
        let (from, to) = parts.max_by_key(|(from, to)| to - from)?;
        Some((begin + from, begin + to))
    }

    /// Where the beginning of a value stands at the end of a line that was cut there.
    fn begun(&self, text: &str) -> Option<(usize, usize)> {
        let kept = &text[..text.rfind(CUT)?];
        // A character that was cut in two.
        let kept = kept.trim_end_matches([' ', '\u{fffd}']);
        let rests = kept.char_indices().map(|(at, _)| (at, &kept[at..]));
        let mut long = rests.take_while(|(_, rest)| rest.len() >= SHORTEST);
        // They are sorted: if any begins with it, so does the first that is not before it.
        let begins = |rest: &str| {
            let at = self.forms.partition_point(|form| form.as_str() < rest);
            self.forms
                .get(at)
                .is_some_and(|form| form.starts_with(rest))
        };
        let begin = long.find(|(_, rest)| begins(rest));
        begin.map(|(begin, _)| (begin, kept.len()))
    }
}

/// Programs print line by line.
fn forms(value: &str, all: &mut Vec<String>, encoded: &mut Vec<String>) {
    for line in value.lines().map(str::trim) {
        if line.len() < SHORTEST {
            continue;
        }
        all.push(line.to_owned());
        let escaped = utf8_percent_encode(line, &ESCAPED).to_string();
        all.push(escaped.replace("%20", "+"));
        all.push(escaped);
        all.extend(serde_json::to_string(line).map(|json| json.trim_matches('"').to_owned()));
        in_base64(line.as_bytes(), encoded);
    }
    if value.len() >= SHORTEST && value.trim().contains('\n') {
        in_base64(value.as_bytes(), encoded);
    }
}

/// Also in the midst of something longer: there are three ways in which it can lie, and the characters
/// at its ends depend on its neighbours.
fn in_base64(value: &[u8], all: &mut Vec<String>) {
    for before in 0..3 {
        let bytes = [&vec![0; before], value].concat();
        let begin = (before * 8).div_ceil(6);
        let end = usize::from(bytes.len() % 3 != 0);
        for text in [
            STANDARD_NO_PAD.encode(&bytes),
            URL_SAFE_NO_PAD.encode(&bytes),
        ] {
            all.extend(text.get(begin..text.len() - end).map(str::to_owned));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_hidden_in_every_form_and_a_short_one_in_none() {
        let value = "p\"ss w?rd/ü+hunter2";
        let mask = Mask::of([value, "short", "line-one-1\nline-two-2\n"]);
        let hidden = |text: &str| mask.hide(text.to_owned());
        assert_eq!(hidden(&format!("a {value} b")), "a *** b");
        assert_eq!(hidden("short line-two-2"), "short ***");
        let json = serde_json::to_string(value).unwrap();
        assert_eq!(hidden(&json), "\"***\"");
        for url in [
            "?key=p%22ss%20w%3Frd%2F%C3%BC%2Bhunter2&x",
            "?key=p%22ss+w%3Frd%2F%C3%BC%2Bhunter2&x",
        ] {
            assert_eq!(hidden(url), "?key=***&x");
        }
        for user in ["", "u:", "me:", "them:"] {
            for after in ["", "!", "!!", "!!!"] {
                let text = format!("{user}{value}{after}");
                for text in [STANDARD_NO_PAD.encode(&text), URL_SAFE_NO_PAD.encode(&text)] {
                    let left = hidden(&text);
                    assert!(left.contains(SHOWN), "{text}");
                    assert!(left.len() < 20, "{left}");
                }
            }
        }
        assert_eq!(Mask::of(["short"]).hide("short".into()), "short");
    }

    #[test]
    fn base64_that_is_broken_into_lines_is_hidden_in_each() {
        let value: String = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
        let value = value.repeat(3);
        let mask = Mask::of([value.as_str()]);
        for before in ["", "KEY=", "DATABASE_URL="] {
            let text =
                base64::engine::general_purpose::STANDARD.encode(format!("{before}{value}\n"));
            for width in [64, 76] {
                let lines = text.as_bytes().chunks(width);
                let lines: Vec<_> = lines
                    .map(|it| String::from_utf8(it.to_vec()).unwrap())
                    .collect();
                let beside = |(touch, line): (&str, &String)| format!("{touch}{line}");
                let touched = ["TOKEN=", "\"", "key:", "b'", "(", "x,"].map(|it| (it, &lines[0]));
                let mut lines = mask.hide_all(lines.clone());
                lines.extend(mask.hide_all(touched.map(beside).to_vec()));
                for hidden in lines {
                    assert!(hidden.contains(SHOWN), "{hidden}");
                    assert!(hidden.len() < 36, "{hidden}");
                }
            }
        }
        for ordinary in [
            "Completed",
            "STATE=Completed",
            "a=",
            "GET /a 200 OkAndMuchMoreThanThat",
            "x",
        ] {
            assert_eq!(mask.hide(ordinary.into()), ordinary);
        }
    }

    #[test]
    fn what_is_left_of_a_value_in_a_line_that_was_cut_is_hidden() {
        let value = format!("begin-{}", "abc".repeat(1000));
        let mask = Mask::of([value.as_str()]);
        let hidden = |text: String| mask.hide(text);
        assert_eq!(
            hidden(format!("key {}… (3006 bytes)", &value[..1500])),
            "key ***… (3006 bytes)"
        );
        assert_eq!(
            hidden(format!("key {} … (7 more bytes)", &value[..9])),
            "key *** … (7 more bytes)"
        );
        let encoded = STANDARD_NO_PAD.encode(&value);
        assert_eq!(
            hidden(format!("{}\u{fffd}…", &encoded[..99])),
            "***\u{fffd}…"
        );
        for whole in ["key begin-abcab", "key beg… (9 bytes)", "a begin-x…"] {
            assert_eq!(hidden(whole.to_owned()), whole);
        }
    }
}
