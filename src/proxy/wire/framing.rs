//! Follows a client's bytes from head to body to the next head, so that [`head::check`] sees every
//! head.

use memchr::{memchr, memchr_iter};

use super::head::{self, BodyLength};

/// The longest size line of a chunk, with its extensions, or trailer line, in bytes.
const MAX_LINE: usize = 4096;

pub struct Reader {
    state: State,
    /// The part of a head, or of a chunk's line, that arrived in earlier reads.
    kept: Vec<u8>,
    /// How long a head may be, in bytes.
    limit: usize,
    /// How many lines of the present head have arrived.
    lines: usize,
    /// The most fields of a whole head among the last bytes.
    fields: usize,
    /// The present head, once it is too long, until it is asked for.
    long: Option<Box<LongHead>>,
    /// The present head is too long, and that has been noted.
    is_long: bool,
}

/// A request whose head is too long: what can be said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongHead {
    pub host: String,
    pub path: String,
    /// As far as it has arrived, in bytes.
    pub size: usize,
}

#[derive(Default, Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    #[default]
    Head,
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    /// The CR LF after a chunk's data. False: the CR is expected; true: the LF.
    ChunkEnd(bool),
    Trailers,
    /// Bytes of an unknown protocol: see [`BodyLength::Upgrade`].
    Unknown,
}

impl Reader {
    /// `limit`: how long a head may be, in bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            state: State::Head,
            kept: Vec::new(),
            limit,
            lines: 0,
            fields: 0,
            long: None,
            is_long: false,
        }
    }

    /// The most fields of a head in the bytes that were followed last, as far as they have arrived. A head that is
    /// too long does not count: it is refused anyway.
    pub fn fields(&self) -> usize {
        match self.is_long {
            true => self.fields,
            false => self.fields.max(self.lines.saturating_sub(1)),
        }
    }

    /// The head that is too long, if there is one. Whoever parses it refuses it.
    pub fn long(&mut self) -> Option<Box<LongHead>> {
        self.long.take()
    }

    /// Waiting for a head, or in one.
    pub fn in_head(&self) -> bool {
        self.state == State::Head
    }

    /// No byte of the next head has arrived.
    pub fn at_start(&self) -> bool {
        self.in_head() && self.kept.is_empty() && !self.is_long
    }

    /// Another protocol may have begun, so the bytes are no longer checked.
    pub fn is_lost(&self) -> bool {
        self.state == State::Unknown
    }

    /// Checks the next bytes. The error is the index of the byte that must not be passed on.
    pub fn follow(&mut self, bytes: &[u8]) -> Result<(), usize> {
        let mut at = 0;
        self.fields = 0;
        while at < bytes.len() {
            at += self.step(&bytes[at..]).map_err(|bad| at + bad)?;
        }
        Ok(())
    }

    /// Returns how many bytes were consumed, at least one.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        let all = bytes.len();
        match &mut self.state {
            State::Unknown => Ok(all),
            State::Head => self.head(bytes),
            State::Length(left) => {
                let part = (*left).min(all as u64);
                *left -= part;
                if *left == 0 {
                    self.state = State::Head;
                }
                Ok(part as usize)
            }
            State::ChunkData(left) => {
                let part = (*left).min(all as u64);
                *left -= part;
                if *left == 0 {
                    self.state = State::ChunkEnd(false);
                }
                Ok(part as usize)
            }
            State::ChunkEnd(second) => {
                let wanted = if *second { b'\n' } else { b'\r' };
                if bytes[0] != wanted {
                    return Err(0);
                }
                self.state = match *second {
                    true => State::ChunkSize,
                    false => State::ChunkEnd(true),
                };
                Ok(1)
            }
            State::ChunkSize | State::Trailers => self.line(bytes),
        }
    }

    fn head(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        if self.is_long {
            // It is refused, and nothing after it is read.
            return Ok(bytes.len());
        }
        if self.kept.is_empty() {
            // An empty line before a request is to be ignored, as some clients send one after a
            // body.
            match bytes {
                [b'\n', ..] => return Err(0),
                [b'\r', b'\n', ..] => return Ok(2),
                [b'\r', _, ..] => return Err(1),
                _ => {}
            }
        } else if self.kept == b"\r" {
            if bytes[0] != b'\n' {
                return Err(0);
            }
            self.kept.clear();
            return Ok(1);
        }
        let kept = self.kept.len();
        for newline in memchr_iter(b'\n', bytes) {
            self.lines += 1;
            let before = |back: usize| match newline.checked_sub(back) {
                Some(at) => bytes[at],
                None => *self.kept.get(kept + newline - back).unwrap_or(&0),
            };
            if kept + newline < 1 || before(1) != b'\r' {
                return Err(newline);
            }
            if kept + newline >= 3 && before(2) == b'\n' {
                let end = newline + 1;
                if kept + end > self.limit {
                    self.say_long(&bytes[..end]);
                    return Ok(bytes.len());
                }
                // Without the request's line and the empty one.
                self.fields = self.fields.max(self.lines.saturating_sub(2));
                self.lines = 0;
                let body = match kept {
                    0 => head::check(&bytes[..end]),
                    _ => {
                        self.kept.extend_from_slice(&bytes[..end]);
                        head::check(&self.kept)
                    }
                };
                self.kept = Vec::new();
                self.state = match body.map_err(|_| newline)? {
                    BodyLength::Exact(0) => State::Head,
                    BodyLength::Exact(length) => State::Length(length),
                    BodyLength::Chunked => State::ChunkSize,
                    BodyLength::Upgrade => State::Unknown,
                };
                return Ok(end);
            }
        }
        // What is not whole yet will be longer.
        if kept + bytes.len() >= self.limit {
            self.say_long(bytes);
        } else {
            self.kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    /// Notes whose head it is that is too long, judging by what of it is kept and the `rest`.
    fn say_long(&mut self, rest: &[u8]) {
        self.is_long = true;
        let seen = [&self.kept[..], &rest[..rest.len().min(self.limit)]].concat();
        let mut lines = seen.split(|&b| b == b'\n').map(<[u8]>::trim_ascii);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let first = lines.next().unwrap_or_default();
        let target = first.split(|&b| b == b' ').nth(1).unwrap_or_default();
        let path = target.split(|&b| b == b'?').next().unwrap_or_default();
        let host = lines.find_map(|line| {
            let (name, value) = line.split_at_checked(5)?;
            name.eq_ignore_ascii_case(b"host:").then_some(value)
        });
        self.long = Some(Box::new(LongHead {
            host: text(host.unwrap_or_default().trim_ascii()),
            path: text(path),
            size: self.kept.len() + rest.len(),
        }));
    }

    fn line(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        let end = memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
        self.kept.extend_from_slice(&bytes[..end]);
        if self.kept.len() > MAX_LINE {
            return Err(end - 1);
        }
        if self.kept.last() != Some(&b'\n') {
            return Ok(end);
        }
        let line = std::mem::take(&mut self.kept);
        let line = line.strip_suffix(b"\r\n").ok_or(end - 1)?;
        self.state = match self.state {
            State::ChunkSize => match chunk_size(line).ok_or(end - 1)? {
                0 => State::Trailers,
                size => State::ChunkData(size),
            },
            _ if line.is_empty() => State::Head,
            state => state,
        };
        Ok(end)
    }
}

/// The size in a chunk's first line, given without its CR LF (RFC 9112, 7.1). `None`: it is invalid.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|&b| b == b';').next()?;
    let digits = match digits {
        // White space is allowed only before an extension.
        [rest @ .., b' ' | b'\t'] if digits.len() < line.len() => rest,
        _ => digits,
    };
    if digits.is_empty() || digits.len() > 15 || line.contains(&b'\r') {
        return None;
    }
    digits.iter().try_fold(0, |n, &digit| {
        Some(n << 4 | u64::from((digit as char).to_digit(16)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// The result, which must not depend on how the bytes are split.
    fn follow(text: &str) -> (bool, Result<(), ()>) {
        let mut results = Vec::new();
        for size in [1, 2, 3, 5, 8, text.len()] {
            let mut reader = Reader::new(head::USUAL);
            let mut parts = text.as_bytes().chunks(size);
            let result = parts.try_for_each(|part| reader.follow(part));
            results.push((result.is_ok() && reader.at_start(), result.map_err(|_| ())));
        }
        results.dedup();
        assert_eq!(results.len(), 1, "{text:?} {results:?}");
        results[0]
    }

    #[test]
    fn requests_one_after_the_other() {
        let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\n\n\n\n\n";
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3;x=y\r\n\n\n\n\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
        for text in [
            GET.to_string(),
            GET.repeat(3),
            post.to_string() + GET,
            post.to_string() + "\r\n" + GET,
            chunked.to_string() + GET + chunked,
        ] {
            assert_eq!(follow(&text), (true, Ok(())), "{text:?}");
        }
        let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\n\r\n\n\n\0";
        assert_eq!(follow(upgrade), (false, Ok(())));
    }

    #[test]
    fn fields_are_counted_and_a_head_that_is_too_long_is_named() {
        let many = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "A: b\r\n".repeat(150)
        );
        for size in [1, 7, many.len()] {
            let mut reader = Reader::new(head::USUAL);
            let mut most = 0;
            for part in many.as_bytes().chunks(size) {
                reader.follow(part).unwrap();
                most = most.max(reader.fields());
            }
            assert_eq!((most, reader.long()), (151, None));
            reader.follow(GET.as_bytes()).unwrap();
            assert_eq!(reader.fields(), 1);
        }
        let long = format!(
            "GET /x?y HTTP/1.1\r\nX: {}\r\nhOST: a.test:80\r\nY: {}\r\n\r\n",
            "x".repeat(500),
            "y".repeat(1000),
        );
        for size in [1, 100, long.len()] {
            let mut reader = Reader::new(1000);
            let mut found = None;
            for part in long.as_bytes().chunks(size) {
                reader.follow(part).unwrap();
                found = found.or(reader.long());
            }
            let found = found.unwrap();
            assert_eq!((&*found.host, &*found.path), ("a.test:80", "/x"));
            assert!(
                found.size >= 1000 && found.size <= long.len(),
                "{}",
                found.size
            );
        }
    }

    #[test]
    fn the_second_request_is_read_as_strictly_as_the_first() {
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        for text in [
            format!("{GET}GET / HTTP/1.1\nHost: a\r\n\r\n"),
            format!("{GET}\n{GET}"),
            format!("{GET}GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            format!("{chunked}3\nabc\r\n0\r\n\r\n"),
            format!("{chunked}3\r\nabcd\r\n0\r\n\r\n"),
            format!("{chunked}+3\r\nabc\r\n0\r\n\r\n"),
            format!("{chunked}\r\nabc\r\n0\r\n\r\n"),
            format!("{chunked}3\r\nabc\r\n0\r\n\n"),
        ] {
            assert_eq!(follow(&text).1, Err(()), "{text:?}");
        }
    }
}
