//! Prints to stdout. If the reader has gone (`cutover releases hello | head -1`), the process ends
//! quietly, where `println!` would panic.

use std::io::{self, Write};

use serde::Serialize;

/// Prints `text` and a line feed.
pub fn line(text: impl std::fmt::Display) {
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
    line(text);
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
