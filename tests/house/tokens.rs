//! Rust's text as the few tokens that names and imports are made of.

/// Words, `::`, and single signs; no comments, no literals, and nothing that only tests are built
/// with.
pub fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(literal) = literal(rest) {
            literal
        } else if word > 0 {
            tokens.push(rest[..word].to_owned());
            word
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    without_tests(&tokens)
}

/// The length of the string or character that `text` begins with.
fn literal(text: &str) -> Option<usize> {
    let quoted = text.strip_prefix('b').unwrap_or(text);
    let before = text.len() - quoted.len();
    if let Some(raw) = quoted.strip_prefix('r')
        && let marks = raw.len() - raw.trim_start_matches('#').len()
        && raw[marks..].starts_with('"')
    {
        let end = format!("\"{}", "#".repeat(marks));
        let body = &raw[marks + 1..];
        return Some(before + 1 + marks + 1 + body.find(&end)? + end.len());
    }
    let mark = quoted.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let body = &quoted[1..];
    // A lifetime has no second mark.
    let is_char = body.starts_with('\\') || body.chars().nth(1) == Some('\'');
    if mark == '\'' && !is_char {
        return Some(before + 1);
    }
    let mut escaped = false;
    let end = body.char_indices().find(|&(_, c)| {
        let ends = c == mark && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(before + 1 + end?.0 + 1)
}

/// Leaves out the modules, functions and imports under `#[cfg(test)]` and the like.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at] == "#" && tokens.get(at + 1).is_some_and(|next| next == "[") {
            let end = closing(tokens, at + 1);
            if is_for_tests(&tokens[at + 2..end]) {
                at = item_end(tokens, end + 1);
                continue;
            }
        }
        kept.push(tokens[at].clone());
        at += 1;
    }
    kept
}

/// `cfg(test)`, or any of which tests are one; not what is left out of tests.
pub fn is_for_tests(attribute: &[String]) -> bool {
    let has = |word: &str| attribute.iter().any(|token| token == word);
    attribute.first().is_some_and(|first| first == "cfg") && has("test") && !has("not")
}

/// Behind the item that begins at `at`.
fn item_end(tokens: &[String], mut at: usize) -> usize {
    while at < tokens.len() {
        match tokens[at].as_str() {
            ";" | "," => return at + 1,
            "(" | "[" => at = closing(tokens, at),
            "{" if tokens[at - 1] != "::" => return closing(tokens, at) + 1,
            "{" => at = closing(tokens, at),
            _ => {}
        }
        at += 1;
    }
    at
}

/// Where what is opened at `at` is closed.
pub fn closing(tokens: &[String], at: usize) -> usize {
    let mut depth = 0;
    for (number, token) in tokens.iter().enumerate().skip(at) {
        match token.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return number;
        }
    }
    panic!("no end of {:?}", &tokens[at..(at + 20).min(tokens.len())]);
}

#[test]
fn neither_comments_nor_literals_nor_tests_are_read() {
    let text = r##"
        use a::{b, c}; // crate::x
        fn f<'a>(c: char) -> bool { c == '\'' || "\" crate::y" == b"z" || r#"" crate::z"# == "" }
        #[cfg(test)]
        mod tests { use crate::w; }
        #[cfg(any(test, fuzzing))]
        pub use d::e;
        g()
    "##;
    let read = tokens(text).join(" ");
    assert!(read.starts_with("use a :: { b , c } ;"), "{read}");
    assert!(read.ends_with("g ( )"), "{read}");
    for hidden in ["crate", "w", "e"] {
        assert!(!read.split(' ').any(|token| token == hidden), "{read}");
    }
}
