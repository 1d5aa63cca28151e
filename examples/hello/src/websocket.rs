//! A WebSocket that says the app's version and then sends back every message, as it came.

use std::io::{self, BufRead, Read, Write};

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What `Sec-WebSocket-Accept` has to say to this `Sec-WebSocket-Key`.
pub fn accept(key: &str) -> String {
    base64(&sha1(format!("{key}{GUID}").as_bytes()))
}

/// Serves until either side is done.
pub fn serve(version: &str, input: &mut impl BufRead, output: &mut impl Write) -> io::Result<()> {
    send(output, 0x81, version.as_bytes())?;
    loop {
        let (first, payload) = receive(input)?;
        match first & 0xf {
            // A close is answered with the same, and is the end.
            0x8 => return send(output, 0x88, &payload),
            0x9 => send(output, 0x8a, &payload)?,
            0xa => {}
            _ => send(output, first, &payload)?,
        }
    }
}

fn send(output: &mut impl Write, first: u8, payload: &[u8]) -> io::Result<()> {
    let length = payload.len();
    let mut frame = vec![first];
    match length {
        0..126 => frame.push(length as u8),
        126..65536 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    output.write_all(&frame)
}

/// A frame's first byte and its payload.
fn receive(input: &mut impl BufRead) -> io::Result<(u8, Vec<u8>)> {
    let [first, second] = take(input)?;
    if second & 0x80 == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not masked"));
    }
    let length = match second & 0x7f {
        126 => u16::from_be_bytes(take(input)?).into(),
        127 => u64::from_be_bytes(take(input)?),
        length => length.into(),
    };
    let mask: [u8; 4] = take(input)?;
    let mut payload = Vec::new();
    input.take(length).read_to_end(&mut payload)?;
    if (payload.len() as u64) < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    Ok((first, payload))
}

fn take<const N: usize>(input: &mut impl BufRead) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn sha1(text: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0];
    let mut padded = text.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((text.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut words: Vec<u32> = block
            .chunks_exact(4)
            .map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        for at in 16..80 {
            let word = words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16];
            words.push(word.rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mixed, key) = match at {
                0..20 => (b & c | !b & d, 0x5a827999),
                20..40 => (b ^ c ^ d, 0x6ed9eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1bbcdc),
                _ => (b ^ c ^ d, 0xca62c1d6),
            };
            let next = [mixed, e, key, *word];
            let next = next
                .iter()
                .fold(a.rotate_left(5), |n, x| n.wrapping_add(*x));
            (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
        }
        for (sum, part) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(part);
        }
    }
    let mut digest = [0; 20];
    for (part, word) in digest.chunks_exact_mut(4).zip(state) {
        part.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for part in bytes.chunks(3) {
        let byte = |at: usize| u32::from(*part.get(at).unwrap_or(&0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            match at <= part.len() {
                true => text.push(DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char),
                false => text.push('='),
            }
        }
    }
    text
}
