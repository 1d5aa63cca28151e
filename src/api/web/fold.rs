//! A log in which the output of each build step can be folded away.

use maud::{Markup, html};

/// Fewer lines than this are not worth a fold.
const WORTH: usize = 3;

/// The lines of a log; those of a build step, which may run beside others, come together, and are folded
/// if the step is over and did not fail.
pub fn folded(text: &str) -> Markup {
    let mut parts: Vec<(Option<&str>, Vec<&str>)> = Vec::new();
    // Where the present build's parts begin.
    let mut begin = 0;
    for line in text.lines() {
        let number = step(line);
        if number.is_none() {
            begin = parts.len() + 1;
        }
        let from = begin.min(parts.len());
        let same = parts[from..].iter_mut();
        let mut same = same.filter(|(of, _)| number.is_some() && *of == number);
        match same.next() {
            Some((_, part)) => part.push(line),
            None => parts.push((number, vec![line])),
        }
    }
    let parts = parts.iter().map(|(_, part)| part.as_slice());
    html! {
        @for part in parts {
            @if part.len() < WORTH { @for one in part { (line(one)) } }
            @else {
                details open[!is_done(part)] {
                    summary { (part[0]) " " span.quiet { (ending(part)) } }
                    @for one in &part[1..] { (line(one)) }
                }
            }
        }
    }
}

/// The number of the build step that a line is of: `#7 RUN make`.
fn step(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix('#')?;
    let number = &rest[..rest.find(' ')?];
    (!number.is_empty() && number.bytes().all(|it| it.is_ascii_digit())).then_some(number)
}

fn is_done(part: &[&str]) -> bool {
    let ends = |line: &&str| line.contains(" DONE ") || line.ends_with(" CACHED");
    part.last().is_some_and(ends)
}

fn ending(part: &[&str]) -> String {
    let last = part.last().filter(|_| is_done(part));
    let took = last
        .and_then(|last| last.split_once(" DONE "))
        .map(|(_, took)| took);
    match took {
        Some(took) => format!("{} lines, {took}", part.len()),
        None => format!("{} lines", part.len()),
    }
}

fn line(line: &str) -> Markup {
    html! { span class=[class(line)] { (line) "\n" } }
}

/// As in `script.js`, for the lines that come later.
fn class(line: &str) -> Option<&'static str> {
    match line.as_bytes() {
        [b'[', ..] => Some("head"),
        [b' ', b' ', ..] => Some("out"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_folded_and_what_failed_is_not() {
        let text = "[fetch] main\n#1 RUN a\n#1 one\n#2 RUN b\n#1 <two>\n#2 x\n#1 DONE 2.0s\n#2 y\n\
                    #2 ERROR: exit code: 3\n[build] failed";
        let shown = folded(text).into_string();
        let whole =
            "<details><summary>#1 RUN a <span class=\"quiet\">4 lines, 2.0s</span></summary>";
        assert!(shown.contains(whole), "{shown}");
        assert!(shown.contains("<details open><summary>#2 RUN b"), "{shown}");
        assert!(shown.contains("&lt;two&gt;"), "{shown}");
        assert_eq!(shown.matches("<span class=\"head\">").count(), 2, "{shown}");
        assert_eq!(step("#12 x"), Some("12"));
        assert_eq!((step("#x y"), step("# y"), step("#1")), (None, None, None));
    }
}
