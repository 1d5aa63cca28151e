//! Checks a request's head before anything is done with it. Where hyper is lenient, other servers may
//! parse differently: a request that two servers could understand differently is refused.

use memchr::{memchr, memchr_iter};

/// How long a head may be unless another limit is set, in bytes, in either direction; a longer one is
/// refused.
pub const USUAL: usize = 64 << 10;
/// The highest limit that can be set: what is read of a message at once.
pub const MAX: usize = 128 << 10;

/// How long the body after a head is (RFC 9112, 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyLength {
    Exact(u64),
    Chunked,
    /// The client requests another protocol, and it is not yet known in which one the next bytes are.
    Upgrade,
}

/// Why a head is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    BareLineFeed,
    FoldedLine,
    ContentLength,
    TransferEncoding,
    Host,
}

/// Checks a whole head, including its empty line. What is not checked here, hyper checks.
pub fn check(head: &[u8]) -> Result<BodyLength, Bad> {
    let mut lines = Lines(head);
    let request_line = lines.next().unwrap_or(Ok(b""))?;
    let http_10 = request_line.ends_with(b"HTTP/1.0");
    let (mut length, mut chunked, mut upgrade, mut hosts) = (None, false, false, 0);
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if line[0] == b' ' || line[0] == b'\t' {
            return Err(Bad::FoldedLine);
        }
        // Each of the names looked for has one of these lengths.
        match memchr(b':', line) {
            Some(4) if is(line, b"host") => hosts += 1,
            Some(7) if is(line, b"upgrade") => upgrade = true,
            Some(14) if is(line, b"content-length") => {
                // Allowed once, and digits only: a second field, even with the same value, means that
                // two programs have written this head.
                let value = value(line, 14);
                if length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                    return Err(Bad::ContentLength);
                }
                length = Some(decimal(value).ok_or(Bad::ContentLength)?);
            }
            Some(17) if is(line, b"transfer-encoding") => {
                if chunked || http_10 || !value(line, 17).eq_ignore_ascii_case(b"chunked") {
                    return Err(Bad::TransferEncoding);
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if hosts > 1 || (hosts == 0 && !http_10) {
        return Err(Bad::Host);
    }
    match (chunked, length) {
        (true, Some(_)) => Err(Bad::TransferEncoding),
        (true, None) => Ok(BodyLength::Chunked),
        (false, None | Some(0)) if upgrade || request_line.starts_with(b"CONNECT ") => {
            Ok(BodyLength::Upgrade)
        }
        (false, length) => Ok(BodyLength::Exact(length.unwrap_or(0))),
    }
}

/// The length of the head at the beginning of `bytes`, if all of it is there.
pub fn length(bytes: &[u8]) -> Option<usize> {
    memchr_iter(b'\n', bytes).find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Lines without their CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let end = memchr(b'\n', self.0).unwrap_or(self.0.len() - 1);
        let (line, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        Some(line.strip_suffix(b"\r\n").ok_or(Bad::BareLineFeed))
    }
}

fn is(line: &[u8], name: &[u8]) -> bool {
    line[..name.len()].eq_ignore_ascii_case(name)
}

fn value(line: &[u8], name: usize) -> &[u8] {
    let mut value = &line[name + 1..];
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Many apps overflow on lengths that do not fit into 63 bits.
fn decimal(digits: &[u8]) -> Option<u64> {
    let length = digits.iter().try_fold(0_i64, |n, d| {
        n.checked_mul(10)?.checked_add(i64::from(d - b'0'))
    });
    length.and_then(|n| u64::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &str) -> Result<BodyLength, Bad> {
        check(format!("POST / HTTP/1.1\r\n{fields}\r\n").as_bytes())
    }

    #[test]
    fn framings() {
        assert_eq!(of("Host: a\r\n"), Ok(BodyLength::Exact(0)));
        assert_eq!(
            of("host:a\r\ncontent-LENGTH: 12 \r\n"),
            Ok(BodyLength::Exact(12))
        );
        let chunked = of("Host: a\r\nTransfer-Encoding: Chunked\r\n");
        assert_eq!(chunked, Ok(BodyLength::Chunked));
        assert_eq!(of("Host: a\r\nUpgrade: x\r\n"), Ok(BodyLength::Upgrade));
        assert_eq!(check(b"GET / HTTP/1.0\r\n\r\n"), Ok(BodyLength::Exact(0)));
    }

    #[test]
    fn what_could_be_read_two_ways_is_refused() {
        for (fields, bad) in [
            ("", Bad::Host),
            ("Host: a\r\nHost: a\r\n", Bad::Host),
            ("Host: a\n", Bad::BareLineFeed),
            ("Host: a\r\nX: 1\r\n 2\r\n", Bad::FoldedLine),
            ("Host: a\r\nContent-Length: +1\r\n", Bad::ContentLength),
            ("Host: a\r\nContent-Length: -1\r\n", Bad::ContentLength),
            ("Host: a\r\nContent-Length: 1, 1\r\n", Bad::ContentLength),
            ("Host: a\r\nContent-Length: 0x1\r\n", Bad::ContentLength),
            ("Host: a\r\nContent-Length:\r\n", Bad::ContentLength),
            (
                "Host: a\r\nContent-Length: 9223372036854775808\r\n",
                Bad::ContentLength,
            ),
            (
                "Host: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n",
                Bad::ContentLength,
            ),
            (
                "Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
                Bad::TransferEncoding,
            ),
            (
                "Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n",
                Bad::TransferEncoding,
            ),
            (
                "Host: a\r\nTransfer-Encoding: gzip, chunked\r\n",
                Bad::TransferEncoding,
            ),
            (
                "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                Bad::TransferEncoding,
            ),
        ] {
            assert_eq!(of(fields), Err(bad), "{fields:?}");
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(check(old), Err(Bad::TransferEncoding));
        assert_eq!(
            check(b"GET / HTTP/1.1\nHost: a\r\n\r\n"),
            Err(Bad::BareLineFeed)
        );
    }

    #[test]
    fn a_head_is_whole_with_its_empty_line() {
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nA: b\r\n"), None);
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nA: b\r\n\r"), None);
        assert_eq!(
            length(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nxy\r\n\r\n"),
            Some(25)
        );
        assert_eq!(length(b""), None);
    }
}
