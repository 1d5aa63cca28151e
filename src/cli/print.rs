//! Printing to stdout. A reader that has left (`cutover releases hello | head -1`) ends the process
//! quietly, where `println!` would panic.

use std::io::{self, Write};

use serde::Serialize;

/// Prints `text` and a line end.
pub fn line(text: impl std::fmt::Display) {
    written(writeln!(io::stdout().lock(), "{text}"));
}

/// Prints bytes as they are, at once.
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
