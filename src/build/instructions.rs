//! A Dockerfile's instructions.

use std::ops::Range;

pub(super) struct Instruction {
    /// In one line, without comments and here-documents.
    pub(super) text: String,
    /// Of the Dockerfile, counted from 0, without those of here-documents.
    pub(super) lines: Range<usize>,
}

impl Instruction {
    /// Its name in capitals, and the words after it, of which the first few are flags.
    pub(super) fn words(&self) -> (String, Vec<&str>, usize) {
        let mut words = self.text.split_whitespace();
        let name = words.next().unwrap_or_default().to_ascii_uppercase();
        let words: Vec<_> = words.collect();
        let flags = words.iter().take_while(|word| word.starts_with("--"));
        let flags = flags.count();
        (name, words, flags)
    }
}

/// What the words after FROM and its flags call the stage, in lower case; empty for one without a name.
pub(super) fn stage_name(words: &[&str]) -> String {
    match words {
        [_, r#as, name, ..] if r#as.eq_ignore_ascii_case("as") => name.to_ascii_lowercase(),
        _ => String::new(),
    }
}

/// The variables of an ARG or ENV, with their values if it has them.
pub(super) fn assigned<'a>(words: &[&'a str]) -> Vec<(&'a str, Option<&'a str>)> {
    let one = |word: &&'a str| match word.split_once('=') {
        Some((name, value)) => (name, Some(unquoted(value))),
        None => (*word, None),
    };
    words.iter().map(one).collect()
}

pub(super) fn unquoted(word: &str) -> &str {
    word.trim_matches(['"', '\''])
}

pub(super) fn instructions(dockerfile: &str) -> Vec<Instruction> {
    let text = dockerfile.trim_start_matches('\u{feff}');
    let escape = escape(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut all = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let mut whole = String::new();
        let first = at;
        while let Some(line) = lines.get(at) {
            at += 1;
            let text = line.trim();
            // Comments and empty lines do not end an instruction.
            if text.starts_with('#') || (text.is_empty() && !whole.is_empty()) {
                continue;
            }
            // A line that continues another begins with its own spaces.
            let line = if whole.is_empty() {
                text
            } else {
                line.trim_end()
            };
            match line.strip_suffix(escape) {
                Some(part) => whole.push_str(part),
                None => {
                    whole.push_str(line);
                    break;
                }
            }
        }
        let own = first..at;
        for end in here_documents(&whole) {
            let is_end = |line: &&str| line.trim_start_matches('\t') == end;
            // Without its end it is something else that looks like one.
            if let Some(length) = lines[at..].iter().position(is_end) {
                at += length + 1;
            }
        }
        if !whole.is_empty() {
            all.push(Instruction {
                text: whole,
                lines: own,
            });
        }
    }
    all
}

/// `\`, unless a directive at the very beginning says otherwise.
pub(super) fn escape(text: &str) -> char {
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

/// How many bytes of a text are a variable's name.
pub(super) fn name_length(text: &str) -> usize {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    text.bytes().take_while(is_name).count()
}
