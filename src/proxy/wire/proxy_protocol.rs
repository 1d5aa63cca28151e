//! The PROXY protocol, versions 1 and 2, by which a load balancer in front reports the client's
//! address (haproxy.org, doc/proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memchr::memmem;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest header of version 1, including its CR LF, in bytes.
const LONGEST_LINE: usize = 107;
/// The longest header of version 2, including its optional fields, which are ignored, in bytes.
pub const LONGEST: usize = 1024;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    /// The length of the header, which is to be removed from the stream, in bytes.
    pub length: usize,
    /// `None`: the connection is the balancer's own, such as a health check.
    pub client: Option<IpAddr>,
}

/// Why there is no header.
#[derive(Debug, PartialEq, Eq)]
pub enum NoHeader {
    /// With more bytes it may become one.
    Incomplete,
    Malformed,
}

/// Reads the header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Header, NoHeader> {
    let common = bytes.len().min(SIGNATURE.len());
    if bytes[..common] == SIGNATURE[..common] {
        return binary(bytes);
    }
    let common = bytes.len().min(6);
    if bytes[..common] != b"PROXY "[..common] {
        return Err(NoHeader::Malformed);
    }
    let Some(end) = memmem::find(&bytes[..bytes.len().min(LONGEST_LINE)], b"\r\n") else {
        return match bytes.len() < LONGEST_LINE {
            true => Err(NoHeader::Incomplete),
            false => Err(NoHeader::Malformed),
        };
    };
    let line = std::str::from_utf8(&bytes[6..end]).map_err(|_| NoHeader::Malformed)?;
    Ok(Header {
        length: end + 2,
        client: text(line).ok_or(NoHeader::Malformed)?,
    })
}

fn text(line: &str) -> Option<Option<IpAddr>> {
    let parts: Vec<_> = line.split(' ').collect();
    let port = |text: &str| text.parse::<u16>().is_ok();
    match parts[..] {
        ["UNKNOWN", ..] => Some(None),
        ["TCP4", from, to, a, b] if port(a) && port(b) => {
            to.parse::<Ipv4Addr>().ok()?;
            Some(Some(from.parse::<Ipv4Addr>().ok()?.into()))
        }
        ["TCP6", from, to, a, b] if port(a) && port(b) => {
            to.parse::<Ipv6Addr>().ok()?;
            Some(Some(from.parse::<Ipv6Addr>().ok()?.into()))
        }
        _ => None,
    }
}

fn binary(bytes: &[u8]) -> Result<Header, NoHeader> {
    let Some([version, family, a, b]) = bytes.get(12..16) else {
        return Err(NoHeader::Incomplete);
    };
    let rest = usize::from(u16::from_be_bytes([*a, *b]));
    let length = 16 + rest;
    if version >> 4 != 2 || length > LONGEST {
        return Err(NoHeader::Malformed);
    }
    let addresses = bytes.get(16..length).ok_or(NoHeader::Incomplete)?;
    let client = match (version & 0xf, family >> 4) {
        (0, _) => None,
        (1, 1) if rest >= 12 => <[u8; 4]>::try_from(&addresses[..4]).ok().map(IpAddr::from),
        (1, 2) if rest >= 36 => <[u8; 16]>::try_from(&addresses[..16])
            .ok()
            .map(IpAddr::from),
        (1, 0 | 3) => None,
        _ => return Err(NoHeader::Malformed),
    };
    Ok(Header { length, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_name_the_client() {
        let four = Ok(Header {
            length: 36,
            client: Some([1, 2, 3, 4].into()),
        });
        assert_eq!(parse(b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\nGET"), four);
        let six = parse(b"PROXY TCP6 ::1 ::2 1 2\r\n").unwrap();
        assert_eq!(six.client, Some(Ipv6Addr::LOCALHOST.into()));
        let unknown = parse(b"PROXY UNKNOWN whatever\r\n").unwrap();
        assert_eq!((unknown.length, unknown.client), (24, None));

        let v2 = |command: u8, family: u8, rest: &[u8]| {
            let length = (rest.len() as u16).to_be_bytes();
            let head = [command, family, length[0], length[1]];
            [SIGNATURE, &head[..], rest, b"GET"].concat()
        };
        let rest = [1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2, 0xee, 0, 1, 9];
        let header = parse(&v2(0x21, 0x11, &rest)).unwrap();
        assert_eq!(
            (header.length, header.client),
            (32, Some([1, 2, 3, 4].into()))
        );
        assert_eq!(parse(&v2(0x20, 0, &[])).unwrap().client, None);
        let short = parse(&v2(0x21, 0x11, &rest[..8]));
        assert_eq!(short, Err(NoHeader::Malformed));
        assert_eq!(parse(&v2(0x11, 0x11, &rest)), Err(NoHeader::Malformed));
    }

    #[test]
    fn a_part_is_incomplete_and_anything_else_malformed() {
        let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\n";
        for cut in 0..line.len() {
            assert_eq!(parse(&line[..cut]), Err(NoHeader::Incomplete), "{cut}");
        }
        for bad in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            &[b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat(),
        ] {
            assert_eq!(parse(bad), Err(NoHeader::Malformed), "{bad:?}");
        }
    }
}
