//! Decodes the body of an app's HTTP/1 response.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::Frame;
use memchr::memchr;

use super::framing::chunk_size;
use super::head;

/// The longest size line of a chunk, with its extensions, in bytes.
const MAX_LINE: usize = 4 << 10;
const MAX_TRAILERS: usize = 16 << 10;
const TOO_LONG: &str = "a chunk line is too long";
/// The size in bytes above which parts are passed on without copying, together with their buffer.
const SMALL: usize = 2 << 10;

/// How a response's body is framed, and how much of it is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    Length(u64),
    Chunks(Chunks),
    UntilClose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    Size,
    Data(u64),
    /// The CR LF after a chunk's data.
    DataEnd,
    Trailers,
    Ended,
}

/// What the bytes so far contain.
#[derive(Debug)]
pub enum Piece {
    Frame(Frame<Bytes>),
    /// More bytes are needed.
    None,
    End,
}

impl Decoder {
    pub fn chunks() -> Self {
        Self::Chunks(Chunks::Size)
    }

    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunks(Chunks::Ended))
    }

    /// Takes the next piece out of `bytes`.
    pub fn piece(&mut self, bytes: &mut BytesMut) -> Result<Piece, &'static str> {
        match self {
            Self::Length(0) => Ok(Piece::End),
            Self::Length(left) => Ok(data(bytes, left)),
            Self::UntilClose => Ok(data(bytes, &mut u64::MAX.clone())),
            Self::Chunks(chunks) => chunks.piece(bytes),
        }
    }
}

impl Chunks {
    fn piece(&mut self, bytes: &mut BytesMut) -> Result<Piece, &'static str> {
        loop {
            match self {
                Self::Size => {
                    let Some(end) = memchr(b'\n', bytes) else {
                        return none_yet(bytes, MAX_LINE);
                    };
                    // Checked even if the whole line came at once, so that the result does not depend
                    // on the reads.
                    if end > MAX_LINE {
                        return Err(TOO_LONG);
                    }
                    let line = bytes[..end].strip_suffix(b"\r");
                    let size = line.and_then(chunk_size).ok_or("invalid chunk size")?;
                    bytes.advance(end + 1);
                    *self = match size {
                        0 => Self::Trailers,
                        size => Self::Data(size),
                    };
                }
                Self::Data(left) => {
                    let piece = data(bytes, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    return Ok(piece);
                }
                Self::DataEnd => match bytes[..] {
                    [b'\r', b'\n', ..] => {
                        bytes.advance(2);
                        *self = Self::Size;
                    }
                    [] | [b'\r'] => return Ok(Piece::None),
                    _ => return Err("invalid chunk end"),
                },
                Self::Trailers => {
                    if bytes.starts_with(b"\r\n") {
                        bytes.advance(2);
                        *self = Self::Ended;
                        continue;
                    }
                    let Some(end) = head::length(bytes) else {
                        return none_yet(bytes, MAX_TRAILERS);
                    };
                    if end > MAX_TRAILERS {
                        return Err(TOO_LONG);
                    }
                    let trailers = trailers(&bytes[..end])?;
                    bytes.advance(end);
                    *self = Self::Ended;
                    return Ok(Piece::Frame(Frame::trailers(trailers)));
                }
                Self::Ended => return Ok(Piece::End),
            }
        }
    }
}

fn none_yet(bytes: &[u8], at_most: usize) -> Result<Piece, &'static str> {
    match bytes.len() <= at_most {
        true => Ok(Piece::None),
        false => Err(TOO_LONG),
    }
}

/// Takes as much of `left` as has arrived.
fn data(bytes: &mut BytesMut, left: &mut u64) -> Piece {
    let n = usize::try_from(*left)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    if n == 0 {
        return Piece::None;
    }
    *left -= n as u64;
    if n > SMALL {
        return Piece::Frame(Frame::data(bytes.split_to(n).freeze()));
    }
    let copy = Bytes::copy_from_slice(&bytes[..n]);
    bytes.advance(n);
    Piece::Frame(Frame::data(copy))
}

fn trailers(bytes: &[u8]) -> Result<HeaderMap, &'static str> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let bad = "invalid trailers";
    let parsed = httparse::parse_headers(bytes, &mut fields).map_err(|_| bad)?;
    let httparse::Status::Complete((_, fields)) = parsed else {
        return Err(bad);
    };
    let mut trailers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| bad)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| bad)?;
        trailers.append(name, value);
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body's data and trailers, and what is left over, which must not depend on how the bytes are
    /// split.
    fn all(decoder: Decoder, text: &str) -> Result<(String, usize, String), &'static str> {
        let mut results = Vec::new();
        for size in [1, 2, 3, 7, text.len()] {
            results.push(cut(decoder, text, size));
        }
        results.dedup();
        assert_eq!(results.len(), 1, "{text:?} {results:?}");
        results.remove(0)
    }

    fn cut(
        mut decoder: Decoder,
        text: &str,
        size: usize,
    ) -> Result<(String, usize, String), &'static str> {
        let (mut bytes, mut data, mut trailers) = (BytesMut::new(), Vec::new(), 0);
        for part in text.as_bytes().chunks(size) {
            bytes.extend_from_slice(part);
            while let Piece::Frame(frame) = decoder.piece(&mut bytes)? {
                match frame.into_data() {
                    Ok(part) => data.extend_from_slice(&part),
                    Err(frame) => trailers = frame.into_trailers().map_or(0, |t| t.len()),
                }
            }
        }
        assert!(
            decoder.is_ended() || decoder == Decoder::UntilClose,
            "{decoder:?}"
        );
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(&data), trailers, text(&bytes)))
    }

    fn body(
        data: &str,
        trailers: usize,
        rest: &str,
    ) -> Result<(String, usize, String), &'static str> {
        Ok((data.into(), trailers, rest.into()))
    }

    #[test]
    fn bodies_end_where_they_end() {
        assert_eq!(all(Decoder::Length(3), "abcHTTP"), body("abc", 0, "HTTP"));
        assert_eq!(all(Decoder::UntilClose, "abc"), body("abc", 0, ""));
        let chunks = "3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\n";
        let text = format!("{chunks}\r\nHTTP");
        assert_eq!(
            all(Decoder::chunks(), &text),
            body("abc0123456789", 0, "HTTP")
        );
        let text = format!("{chunks}A: b\r\nC: d\r\n\r\nHTTP");
        assert_eq!(
            all(Decoder::chunks(), &text),
            body("abc0123456789", 2, "HTTP")
        );
        let long = "x".repeat(5000);
        let text = format!("1388\r\n{long}\r\n0\r\n\r\n");
        assert_eq!(all(Decoder::chunks(), &text), body(&long, 0, ""));
    }

    #[test]
    fn broken_chunks_are_an_error() {
        let long = "1".repeat(MAX_LINE + 2);
        let extended = format!("0;{}\r\n\r\n", "x".repeat(MAX_LINE));
        let trailers = format!("0\r\nA: {}\r\n\r\n", "x".repeat(MAX_TRAILERS));
        for text in [
            "x\r\n",
            "-1\r\n",
            "3\nabc",
            "3\r\nabcd\r\n",
            "\r\n",
            &long,
            &extended,
            &trailers,
            "0\r\n b\r\n\r\n",
        ] {
            assert!(all(Decoder::chunks(), text).is_err(), "{text:?}");
        }
    }
}
