//! What containers write to stdout and stderr, line by line.

use serde::{Deserialize, Serialize};

use crate::mask::CUT;
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
    time: String,
    bytes: Vec<u8>,
    /// How many bytes of the line are not kept.
    beyond: usize,
    begun: bool,
}

impl Lines {
    pub fn of(stream: Stream) -> Self {
        Self {
            stream,
            time: String::new(),
            bytes: Vec::new(),
            beyond: 0,
            begun: false,
        }
    }

    /// Takes a piece, `TIME TEXT`, that ends with a line feed if it ends its line.
    pub fn take(&mut self, piece: &[u8]) -> Option<Line> {
        let space = piece.iter().position(|byte| *byte == b' ')?;
        let (time, text) = (&piece[..space], &piece[space + 1..]);
        if !self.begun {
            self.time = String::from_utf8_lossy(time).into_owned();
            self.begun = true;
        }
        let ends = text.ends_with(b"\n");
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        let room = LONGEST.saturating_sub(self.bytes.len()).min(text.len());
        self.bytes.extend_from_slice(&text[..room]);
        self.beyond += text.len() - room;
        ends.then(|| self.end())
    }

    /// The line so far, if one has begun.
    pub fn rest(&mut self) -> Option<Line> {
        self.begun.then(|| self.end())
    }

    fn end(&mut self) -> Line {
        self.begun = false;
        let bytes = std::mem::take(&mut self.bytes);
        let mut text = printable(&String::from_utf8_lossy(&bytes)).into_owned();
        match std::mem::take(&mut self.beyond) {
            0 => {}
            beyond => text += &format!(" {CUT} ({beyond} more bytes)"),
        }
        Line {
            time: std::mem::take(&mut self.time),
            stream: self.stream,
            text,
        }
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
        assert!(long.len() < LONGEST + 100 && long.ends_with(" more bytes)"));
        assert_eq!(lines.rest(), None);
        lines.take(b"t no end");
        assert_eq!(lines.rest().unwrap().text, "no end");
    }
}
