//! Everything that strangers or a torn disk can hand to the proxy, altered at random: no reader may
//! panic, and how the bytes are cut must not matter. Seeded, so that a failure can be seen again.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::app_body::{Framing, Piece};
use super::app_head;
use super::control::Command;
use super::framing::Reader;
use super::headers::{Client, strip_hop_by_hop};
use super::live::Live;
use super::websocket::Frames;
use super::{disk, proxy_protocol};

/// `CUTOVER_FUZZ_ROUNDS` asks for more.
const ROUNDS: u64 = 20_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }

    /// `seed` with some bytes changed, put in, taken out or doubled.
    fn altered(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = self.below(256) as u8,
                1 => bytes.insert(at, b"\r\n :;,\0-0fF"[self.below(11)]),
                2 if !bytes.is_empty() => drop(bytes.remove(at)),
                3 => bytes.truncate(at),
                _ => {
                    let part = bytes[at..].to_vec();
                    bytes.extend(part);
                }
            }
        }
        bytes
    }
}

fn each(seeds: &[&[u8]], mut look: impl FnMut(&mut Random, &[u8])) {
    let rounds = std::env::var("CUTOVER_FUZZ_ROUNDS").map_or(ROUNDS, |n| n.parse().unwrap());
    for round in 1..=rounds {
        let mut random = Random(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seed = seeds[random.below(seeds.len())];
        let bytes = random.altered(seed);
        look(&mut random, &bytes);
    }
}

#[test]
fn requests_are_read_alike_however_they_are_cut() {
    let seeds: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\r\nGET / HTTP/1.0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\n\
          X: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x81\x05hello",
    ];
    each(&seeds, |random, bytes| {
        let mut whole = Reader::default();
        let expected = whole.follow(bytes);
        let mut cut = Reader::default();
        let (mut at, mut result) = (0, Ok(()));
        while at < bytes.len() && result.is_ok() {
            let part = 1 + random.below(bytes.len() - at);
            result = cut.follow(&bytes[at..at + part]).map_err(|bad| at + bad);
            at += part;
        }
        assert_eq!(expected, result, "{:?}", String::from_utf8_lossy(bytes));
        if expected.is_ok() {
            assert_eq!(whole.at_start(), cut.at_start());
        }
    });
}

#[test]
fn nothing_of_a_hop_or_of_a_strangers_word_is_left_in_a_head() {
    let seeds: [&[u8]; 3] = [
        b"Host: a\r\nConnection: close, X-A\r\nX-A: 1\r\nKeep-Alive: timeout=1\r\nTE: trailers\r\n",
        b"Connection: upgrade\r\nUpgrade: websocket, h2c\r\nTransfer-Encoding: chunked\r\n",
        b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nProxy-Connection: x\r\nX-Real-IP: 6.6.6.6\r\n",
    ];
    each(&seeds, |_, bytes| {
        let field = |line: &[u8]| {
            let colon = line.iter().position(|&b| b == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            Some((name, value))
        };
        let lines = bytes.split(|&b| b == b'\n');
        let mut head: HeaderMap = HeaderMap::new();
        for (name, value) in lines.filter_map(field) {
            head.append(name, value);
        }
        let host = head.get("host").cloned();
        let host = host.unwrap_or(HeaderValue::from_static("a"));
        strip_hop_by_hop(&mut head);
        Client::new([1, 2, 3, 4].into(), false, false).introduce(&mut head, &host);
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
        ] {
            assert!(!head.contains_key(name), "{name} of {bytes:?}");
        }
        for (name, value) in &head {
            let said = value.as_bytes().windows(7).any(|part| part == b"6.6.6.6");
            let known = ["x-forwarded-for", "forwarded", "x-real-ip"].contains(&name.as_str());
            assert!(!(said && known), "{name} of {bytes:?}");
        }
    });
}

#[test]
fn answers_are_read_alike_however_they_are_cut() {
    let seeds: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nX: y\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nuntil it closes",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ];
    each(&seeds, |random, bytes| {
        let Some(length) = app_head::length(bytes) else {
            return;
        };
        let head = bytes::Bytes::copy_from_slice(&bytes[..length]);
        let Ok(head) = app_head::read(head, &http::Method::GET) else {
            return;
        };
        let rest = &bytes[length..];
        let whole = body(head.framing, &[rest]);
        let mut cuts = Vec::new();
        let mut at = 0;
        while at < rest.len() {
            let end = at + 1 + random.below(rest.len() - at);
            cuts.push(&rest[at..end]);
            at = end;
        }
        assert_eq!(whole, body(head.framing, &cuts), "{bytes:?}");
    });
}

/// The data of a body that comes in these parts; an error stands for whatever came before it.
fn body(mut framing: Framing, parts: &[&[u8]]) -> Result<(Vec<u8>, bool), ()> {
    let (mut bytes, mut data) = (bytes::BytesMut::new(), Vec::new());
    for part in parts {
        bytes.extend_from_slice(part);
        while let Piece::Frame(frame) = framing.piece(&mut bytes).map_err(|_| ())? {
            data.extend(frame.into_data().unwrap_or_default());
        }
    }
    Ok((data, framing.is_ended()))
}

#[test]
fn other_readers_do_not_panic() {
    let text = br#"{"publish":{"generation":1,"routes":[{"app":"a","release":"r","generation":1,
        "hosts":["a"],"targets":["127.0.0.1:1"]}]}}"#;
    let file = b"{\"generation\":1,\"routes\":[]}\nsha256 00\n";
    let seeds: [&[u8]; 5] = [
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 65535\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02",
        text,
        file,
        b"\x81\x85abcdhello\x88\x82abcdxy\x82\x7e\x01\x00",
    ];
    each(&seeds, |_, bytes| {
        if let Ok(header) = proxy_protocol::parse(bytes) {
            assert!(header.length <= bytes.len());
        }
        if let Ok(Command::Publish(table)) = serde_json::from_slice(bytes) {
            let _ = Live::build(table, &[]).find("a", "/x");
        }
        let _ = disk::parse(bytes);
        let mut frames = Frames::default();
        let rest = frames.rest_of_frame(bytes);
        assert!(rest <= bytes.len());
        frames.follow(bytes);
    });
}
