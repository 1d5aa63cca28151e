//! Joins the pieces in which a program's output comes to lines.

use crate::mask::CUT;

/// The line of one stream that has not ended yet. Of a very long one the beginning is kept: in the parts of
/// a line that is divided, a secret at the seam could not be recognized.
#[derive(Default)]
pub struct Join(Line);

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Without its line feed.
    pub head: Vec<u8>,
    /// How long the whole line was, in bytes.
    pub length: usize,
}

impl Join {
    /// Takes a piece and returns the lines that end in it, of each at most so many bytes.
    pub fn take(&mut self, piece: &[u8], most: usize) -> Vec<Line> {
        let mut ended = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = most.saturating_sub(self.0.head.len()).min(text.len());
            self.0.head.extend_from_slice(&text[..room]);
            self.0.length += text.len();
            if text.len() < part.len() {
                ended.push(std::mem::take(&mut self.0));
            }
        }
        ended
    }

    /// The last line, if it has no end.
    pub fn rest(&mut self) -> Option<Line> {
        let line = std::mem::take(&mut self.0);
        (line.length > 0).then_some(line)
    }
}

impl Line {
    /// What to add to the text if not all of it is kept.
    pub fn note(&self) -> String {
        match self.length > self.head.len() {
            true => format!("{CUT} ({} bytes)", self.length),
            false => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_may_come_in_pieces_and_a_long_one_stays_one() {
        let mut join = Join::default();
        assert_eq!(join.take(b"on", 9), []);
        let lines = join.take(b"e\n\ntw", 9);
        let heads: Vec<_> = lines.iter().map(|line| &*line.head).collect();
        assert_eq!(heads, [&b"one"[..], b""]);
        assert_eq!(join.take(&[b'x'; 100], 9), []);
        let lines = join.take(b"y\nz", 9);
        assert_eq!((&*lines[0].head, lines.len()), (&b"twxxxxxxx"[..], 1));
        assert_eq!(lines[0].note(), "… (103 bytes)");
        assert_eq!(join.rest().map(|line| line.note()), Some(String::new()));
        assert_eq!(join.rest(), None);
    }
}
