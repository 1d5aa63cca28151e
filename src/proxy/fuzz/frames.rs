use super::step;
use crate::proxy::wire::websocket::Frames;

/// A WebSocket's bytes: the ends of its frames are found however the bytes are split into reads, and
/// where a plain count finds them.
pub fn frames(bytes: &[u8]) {
    let (ends, closed_from) = ends(bytes);
    let (mut frames, mut at) = (Frames::default(), 0);
    for part in bytes.chunks(step(bytes)) {
        let boundary = at == 0 || ends.contains(&at);
        assert_eq!(frames.at_boundary(), boundary, "at {at}");
        assert_eq!(frames.closed, closed_from <= at, "closed at {at}");
        let next = match boundary {
            true => at,
            false => ends
                .iter()
                .copied()
                .find(|&end| end > at)
                .unwrap_or(bytes.len()),
        };
        assert_eq!(frames.rest_of_frame(&bytes[at..]), next - at, "at {at}");
        frames.follow(part);
        at += part.len();
    }
    let mut whole = Frames::default();
    whole.follow(bytes);
    assert_eq!(whole.at_boundary(), frames.at_boundary());
    assert_eq!(whole.closed, frames.closed);
}

/// Where each frame ends, and from where on the header of a close frame has been seen.
fn ends(bytes: &[u8]) -> (Vec<usize>, usize) {
    let (mut ends, mut at, mut closed) = (Vec::new(), 0_usize, usize::MAX);
    while let Some([first, second]) = bytes.get(at..at + 2) {
        let wide = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = bytes.get(at + 2..at + 2 + wide) else {
            break;
        };
        let length = match wide {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |n, &byte| n << 8 | u64::from(byte)),
        };
        let header = 2 + wide + if second & 0x80 != 0 { 4 } else { 0 };
        if first & 0xf == 8 {
            closed = closed.min(at + header);
        }
        let Some(end) = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(at + header))
            .filter(|&end| end <= bytes.len())
        else {
            break;
        };
        ends.push(end);
        at = end;
    }
    (ends, closed)
}
