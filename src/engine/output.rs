//! What containers write to stdout and stderr, line by line.

use serde::{Deserialize, Serialize};

use crate::join::{self, Join};
use crate::printable::printable;

/// The most of a line that is kept, in bytes.
const LONGEST: usize = 16 << 10;

/// One line of a container's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// RFC 3339 with nanoseconds: the texts sort as the times do.
    pub time: String,
    pub stream: Stream,
    /// Without control characters; of a line longer than 16 KiB, the beginning.
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Which of a container's output to read.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Go on with what it writes from now on.
    pub follow: bool,
    /// In seconds since 1970.
    pub since: Option<i32>,
    /// The last so many lines.
    pub tail: Option<usize>,
}

/// Puts the lines of one stream together: the engine cuts long ones into pieces, each with its time.
pub struct Lines {
    stream: Stream,
    /// That of the line's beginning, if one has begun.
    time: Option<String>,
    open: Join,
}

impl Lines {
    pub fn of(stream: Stream) -> Self {
        Self {
            stream,
            time: None,
            open: Join::default(),
        }
    }

    /// Takes a piece, `TIME TEXT`, that ends with a line feed if it ends its line.
    pub fn take(&mut self, piece: &[u8]) -> Option<Line> {
        let space = piece.iter().position(|byte| *byte == b' ')?;
        let (time, text) = (&piece[..space], &piece[space + 1..]);
        let time = || String::from_utf8_lossy(time).into_owned();
        self.time.get_or_insert_with(time);
        let ended = self.open.take(text, LONGEST).pop()?;
        self.end(&ended)
    }

    /// The line so far, if one has begun.
    pub fn rest(&mut self) -> Option<Line> {
        let line = self.open.rest().unwrap_or_default();
        self.end(&line)
    }

    fn end(&mut self, line: &join::Line) -> Option<Line> {
        let text = printable(&String::from_utf8_lossy(&line.head)).into_owned();
        Some(Line {
            time: self.time.take()?,
            stream: self.stream,
            text: text + &line.note(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_that_harm_no_terminal() {
        let mut lines = Lines::of(Stream::Stdout);
        let time = "2026-01-01T00:00:00.000000001Z";
        assert_eq!(lines.take(format!("{time} one ").as_bytes()), None);
        let line = lines.take(b"2026-01-01T00:00:09Z two \x1b[31mred\x1b[0m\x07\xff\r\n");
        let line = line.unwrap();
        assert_eq!(line.time, time, "that of its beginning");
        assert!(line.text.starts_with("one two "), "{line:?}");
        assert!(!line.text.contains(char::is_control), "{line:?}");
        for _ in 0..64 {
            assert_eq!(lines.take(&[b"t ", &[b'x'; 16 << 10][..]].concat()), None);
        }
        let long = lines.take(b"t x\n").unwrap().text;
        assert!(long.len() < LONGEST + 100 && long.ends_with(" bytes)"));
        assert_eq!(lines.rest(), None);
        lines.take(b"t no end");
        assert_eq!(lines.rest().unwrap().text, "no end");
    }
}
