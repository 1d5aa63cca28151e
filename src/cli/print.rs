//! Prints to stdout. If the reader has gone (`cutover releases hello | head -1`), the process ends
//! quietly, where `println!` would panic.

use std::fmt::Display;
use std::io::{self, Write};

use serde::Serialize;

use crate::printable::{is_obeyed, printable};

/// Prints `text`, whoever wrote it, and a line feed.
pub fn line(text: impl Display) {
    styled(printable(&text.to_string()));
}

/// The same on stderr.
pub fn error(text: impl Display) {
    eprintln!("{}", printable(&text.to_string()));
}

/// Prints `text` of our own, with its colours, and a line feed.
pub fn styled(text: impl Display) {
    written(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints bytes unchanged, and flushes them.
pub fn raw(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()));
}

/// Prints `value` as indented JSON.
pub fn json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("values from JSON go back to JSON");
    // JSON escapes some controls by itself, and these are only found within its texts.
    let escaped = |c: char| match c != '\n' && is_obeyed(c) {
        true => format!("\\u{:04x}", c as u32),
        false => c.to_string(),
    };
    styled(text.chars().map(escaped).collect::<String>());
}

fn written(result: io::Result<()>) {
    if let Err(error) = result {
        let code = match error.kind() {
            io::ErrorKind::BrokenPipe => 0,
            _ => 2,
        };
        std::process::exit(code);
    }
}
