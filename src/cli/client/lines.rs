//! A text that arrives line by line.

use http_body_util::BodyExt;
use hyper::body::Incoming;

/// The longest line, in bytes; a longer one is returned in pieces.
const LONGEST: usize = 64 << 10;

/// The lines of a response's body, as they arrive.
pub struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            read: Vec::new(),
        }
    }

    /// The next line without its end; `None` after the last one. An error means that the agent went
    /// away before the end.
    pub async fn next(&mut self) -> Result<Option<String>, hyper::Error> {
        loop {
            let end = self.read.iter().position(|byte| *byte == b'\n');
            if let Some(end) = end {
                return Ok(Some(self.take(end, end + 1)));
            }
            if self.read.len() > LONGEST {
                return Ok(Some(self.take(LONGEST, LONGEST)));
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
                None if self.read.is_empty() => return Ok(None),
                None => {
                    let rest = self.read.len();
                    return Ok(Some(self.take(rest, rest)));
                }
            }
        }
    }

    fn take(&mut self, length: usize, consumed: usize) -> String {
        let line = String::from_utf8_lossy(&self.read[..length]).into_owned();
        self.read.drain(..consumed);
        line
    }
}
