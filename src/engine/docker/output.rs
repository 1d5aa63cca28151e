//! A program's output: its lines, and the last of them.

use std::collections::VecDeque;

use bollard::container::LogOutput;

use crate::join::{Join, Line};
use crate::printable::printable;

/// How much of a very long line is kept, in bytes.
const HEAD: usize = 2000;

/// The last lines of an output. One line without end does not push the others out.
pub(super) struct Tail {
    most: usize,
    lines: VecDeque<String>,
    /// Of stdout and stderr.
    open: [Join; 2],
}

impl Tail {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            lines: VecDeque::new(),
            open: Default::default(),
        }
    }

    /// Takes a piece of what a container prints.
    pub(super) fn output(&mut self, output: &LogOutput) {
        self.take(stream(output), output.as_ref());
    }

    /// Takes a piece of a stream, 0 or 1.
    pub(super) fn take(&mut self, stream: usize, bytes: &[u8]) {
        for line in self.open[stream].take(bytes, HEAD) {
            self.keep(&line);
        }
    }

    fn keep(&mut self, line: &Line) {
        if self.lines.len() == self.most {
            self.lines.pop_front();
        }
        self.lines.push_back(readable(&line.head) + &line.note());
    }

    /// The lines, oldest first.
    pub(super) fn lines(mut self) -> Vec<String> {
        for stream in 0..self.open.len() {
            if let Some(line) = self.open[stream].rest() {
                self.keep(&line);
            }
        }
        self.lines.into()
    }
}

/// 0 for stdout, 1 for stderr.
pub(super) fn stream(output: &LogOutput) -> usize {
    usize::from(matches!(output, LogOutput::StdErr { .. }))
}

/// One line of a program's output, without text overwritten by a carriage return.
pub(super) fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end();
    printable(text.rsplit('\r').next().unwrap_or(text)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_a_long_one_is_one() {
        let mut tail = Tail::new(3);
        tail.take(0, b"one\ntwo\nth");
        tail.take(1, b"error\n");
        tail.take(0, b"ree\n");
        for _ in 0..64 {
            tail.take(0, &[b'x'; 16 << 10]);
        }
        tail.take(0, b"\n");
        tail.take(1, b"\x1b[31mreason");
        let lines = tail.lines();
        assert_eq!((lines[0].as_str(), lines[2].as_str()), ("three", "reason"));
        assert!(lines[1].ends_with("x… (1048576 bytes)"), "{}", lines[1]);
        assert!(lines[1].len() < HEAD + 100);
        assert!(Tail::new(3).lines().is_empty());
    }
}
