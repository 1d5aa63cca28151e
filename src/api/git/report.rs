//! git's response to a push: which refs it accepted, and what the pusher is shown.

use super::packet::{self, FLUSH, Packet};

/// The response on its way through. Everything except its end is passed on to the pusher, so that more
/// can be added before the end.
#[derive(Default)]
pub(super) struct Report {
    rest: Vec<u8>,
    /// The report itself, which consists of packets within packets.
    inner: Vec<u8>,
    pub(super) ended: bool,
}

impl Report {
    /// Consumes a piece of the response and returns what can be passed on.
    pub(super) fn take(&mut self, piece: &[u8]) -> Result<Vec<u8>, &'static str> {
        self.rest.extend_from_slice(piece);
        let mut on = Vec::new();
        while let Some(packet) = packet::take(&mut self.rest)? {
            match packet {
                Packet::Flush => self.ended = true,
                Packet::Data(data) => {
                    if let [1, report @ ..] = data.as_slice() {
                        self.inner.extend_from_slice(report);
                    }
                    on.extend(packet::wrap(&data));
                }
            }
        }
        Ok(on)
    }

    /// Whether git moved this ref.
    pub(super) fn took(&self, git_ref: &str) -> bool {
        self.has(&format!("ok {git_ref}"))
    }

    /// Whether git refused this ref because the pusher's clone lacks the commits that it is built on.
    pub(super) fn is_shallow(&self, git_ref: &str) -> bool {
        self.has(&format!("ng {git_ref} shallow update not allowed"))
    }

    fn has(&self, wanted: &str) -> bool {
        let mut inner = self.inner.clone();
        while let Ok(Some(packet)) = packet::take(&mut inner) {
            if let Packet::Data(line) = packet
                && line.trim_ascii_end() == wanted.as_bytes()
            {
                return true;
            }
        }
        false
    }
}

/// The complete response to a push that is refused, with a reason for each ref.
pub(super) fn refused(refs: &[(&str, String)]) -> Vec<u8> {
    let mut report = packet::wrap(b"unpack ok\n");
    for (git_ref, why) in refs {
        report.extend(packet::wrap(format!("ng {git_ref} {why}\n").as_bytes()));
    }
    report.extend(FLUSH);
    let pieces = report.chunks(packet::LONGEST - 1);
    let mut answer: Vec<u8> = pieces
        .flat_map(|piece| packet::wrap(&[b"\x01", piece].concat()))
        .collect();
    answer.extend(FLUSH);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_through_and_its_end_held_back() {
        let inner = [
            packet::wrap(b"unpack ok\n"),
            packet::wrap(b"ok refs/heads/main\n"),
            packet::wrap(b"ng refs/heads/x no\n"),
            FLUSH.to_vec(),
        ];
        let mut answer = packet::remark(b"hello\n");
        answer.extend(packet::wrap(&[b"\x01", inner.concat().as_slice()].concat()));
        let without_end = answer.clone();
        answer.extend(FLUSH);
        for piece in [1, 5, 1000] {
            let mut report = Report::default();
            let on: Vec<u8> = (answer.chunks(piece))
                .flat_map(|piece| report.take(piece).unwrap())
                .collect();
            assert_eq!(on, without_end);
            assert!(report.ended && report.took("refs/heads/main"));
            assert!(!report.took("refs/heads/x") && !report.took("refs/heads/mai"));
        }
    }
}
