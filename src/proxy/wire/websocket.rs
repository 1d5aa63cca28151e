//! Finds the frame boundaries of a WebSocket (RFC 6455, 5.2), because a close frame can be inserted
//! only between two frames. Payloads are counted, not inspected.

/// "Going away" (RFC 6455, 7.4.1): the client may reconnect at once.
const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();

/// Follows one direction, beginning after the handshake.
#[derive(Default, Debug)]
pub struct Frames {
    /// The header of the frame that is being read, as far as it has arrived.
    header: [u8; 14],
    have: usize,
    /// How many bytes of the frame's payload are still to come.
    payload: u64,
    /// A close frame has passed, and nothing may follow it.
    pub closed: bool,
}

impl Frames {
    /// Follows the next bytes.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let part = self.payload.min(bytes.len() as u64);
                self.payload -= part;
                bytes = &bytes[part as usize..];
                continue;
            }
            self.header[self.have] = bytes[0];
            self.have += 1;
            bytes = &bytes[1..];
            if self.have >= 2 && self.have == header_length(self.header[1]) {
                self.payload = payload_length(&self.header);
                self.closed |= self.header[0] & 0x0f == 0x8;
                self.have = 0;
            }
        }
    }

    /// Whether the position is between two frames. These may be parts of one message, which a control
    /// frame may interrupt.
    pub fn at_boundary(&self) -> bool {
        self.have == 0 && self.payload == 0
    }

    /// How many of `bytes` belong to the frame in progress, and must be sent before a close frame.
    pub fn rest_of_frame(&self, bytes: &[u8]) -> usize {
        let mut copy = Self { ..*self };
        let mut at = 0;
        while at < bytes.len() && !copy.at_boundary() {
            let part = copy.payload.clamp(1, (bytes.len() - at) as u64) as usize;
            copy.follow(&bytes[at..at + part]);
            at += part;
        }
        at
    }
}

fn header_length(second: u8) -> usize {
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    2 + mask
        + match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
}

fn payload_length(header: &[u8; 14]) -> u64 {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, &b| n << 8 | u64::from(b));
    match header[1] & 0x7f {
        126 => number(&header[2..4]),
        127 => number(&header[2..10]),
        length => length.into(),
    }
}

/// The close frame for the client.
pub fn close_from_server() -> [u8; 4] {
    [0x88, 2, GOING_AWAY[0], GOING_AWAY[1]]
}

/// The close frame for the app, which requires a client's frames to be masked.
pub fn close_from_client(mask: [u8; 4]) -> [u8; 8] {
    let [a, b, c, d] = mask;
    [0x88, 0x82, a, b, c, d, GOING_AWAY[0] ^ a, GOING_AWAY[1] ^ b]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, masked: bool, length: usize) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut bytes = vec![0x80 | opcode];
        match length {
            0..126 => bytes.push(mask | length as u8),
            126..65536 => {
                bytes.push(mask | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.resize(bytes.len() + length + if masked { 4 } else { 0 }, 0x5a);
        bytes
    }

    #[test]
    fn a_boundary_is_found_however_the_bytes_arrive() {
        for masked in [false, true] {
            let mut stream = Vec::new();
            let mut boundaries = vec![0];
            for length in [0, 1, 125, 126, 300, 65535, 65536] {
                stream.extend(frame(2, masked, length));
                boundaries.push(stream.len());
            }
            for step in [1, 2, 7, 4096, stream.len()] {
                let mut frames = Frames::default();
                let mut at = 0;
                for part in stream.chunks(step) {
                    assert_eq!(frames.at_boundary(), boundaries.contains(&at), "{at}");
                    let next = boundaries.iter().find(|&&b| b >= at).unwrap();
                    let rest = frames.rest_of_frame(&stream[at..]);
                    assert_eq!(rest, next - at, "at {at}, step {step}");
                    frames.follow(part);
                    at += part.len();
                }
                assert!(frames.at_boundary() && !frames.closed);
            }
        }
    }

    #[test]
    fn close_frames_are_seen_and_made() {
        let mut frames = Frames::default();
        frames.follow(&close_from_server());
        assert!(frames.at_boundary() && frames.closed);
        let mut frames = Frames::default();
        let close = close_from_client([1, 2, 3, 4]);
        frames.follow(&close);
        assert!(frames.at_boundary() && frames.closed);
        assert_eq!([close[6] ^ 1, close[7] ^ 2], GOING_AWAY);
    }
}
