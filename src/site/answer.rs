//! The answer to a request.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;

use crate::condition::{Part, has_changed, is_known, part};
use crate::files::{Content, Found, Site};
use crate::request::Request;
use crate::{date, kind};

/// Up to so many bytes are sent in one write with the head.
const SMALL: u64 = 32 << 10;
/// Whether the server works, whatever the site has. No file can have this path.
const HEALTH: &str = "/.cutover/health";
const FOREVER: &str = "public, max-age=31536000, immutable";
/// May be kept, and is asked for again each time, which costs a 304.
const ASK_AGAIN: &str = "no-cache";

pub fn answer(
    site: &Site,
    request: &Request,
    stays: bool,
    output: &mut TcpStream,
) -> io::Result<()> {
    if request.path == HEALTH {
        return text(request, "200 OK", "ok\n", stays, output);
    }
    let parts = request.parts();
    let found = parts
        .as_deref()
        .map_or(Found::Nothing, |parts| site.find(parts));
    match (found, &parts) {
        (Found::File(path), _) => file(site, request, &path, "200 OK", stays, output),
        (Found::Folder, Some(parts)) => {
            let query = request.query.as_ref();
            let query = query.map_or_else(String::new, |query| format!("?{query}"));
            let status = format!(
                "301 Moved Permanently\r\nlocation: {}/{}",
                encoded(parts),
                query.replace(|c: char| !c.is_ascii_graphic(), "")
            );
            text(request, &status, "", stays, output)
        }
        (_, parts) => {
            let parts = parts.as_ref();
            if let Some(path) = parts.and_then(|it| site.fallback(request, it)) {
                return file(site, request, &path, "200 OK", stays, output);
            }
            match site.not_found() {
                Some(path) => file(site, request, &path, "404 Not Found", stays, output),
                None => text(request, "404 Not Found", "not found\n", stays, output),
            }
        }
    }
}

/// The connection ends with it.
pub fn refuse(status: &str, output: &mut TcpStream) -> io::Result<()> {
    text(&Request::default(), status, "", false, output)
}

fn text(
    request: &Request,
    status: &str,
    body: &str,
    stays: bool,
    output: &mut TcpStream,
) -> io::Result<()> {
    let mut head = head(status, stays);
    let _ = write!(
        head,
        "content-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    if !request.is_head {
        head.push_str(body);
    }
    output.write_all(head.as_bytes())
}

fn head(status: &str, stays: bool) -> String {
    let mut head = format!("HTTP/1.1 {status}\r\ndate: {}\r\n", date::now());
    if !stays {
        head.push_str("connection: close\r\n");
    }
    head
}

fn file(
    site: &Site,
    request: &Request,
    path: &Path,
    status: &str,
    stays: bool,
    output: &mut TcpStream,
) -> io::Result<()> {
    let content = site.open(path, request)?;
    // A time of 1970 is one that a builder has taken away: it says nothing of a content.
    let modified = (content.time > 0).then(|| date::written(content.time));
    let modified = modified.as_deref();
    let is_found = status.starts_with("200");
    if is_found && has_changed(request, &content.mark, modified) {
        return text(request, "412 Precondition Failed", "", stays, output);
    }
    let known = is_found && is_known(request, &content.mark, modified);
    let part = match is_found && !known {
        true => part(request, &content.mark, modified, content.size),
        false => Part::Whole,
    };
    let status = match part {
        _ if known => "304 Not Modified",
        Part::Of(..) => "206 Partial Content",
        Part::None => "416 Range Not Satisfiable",
        Part::Whole => status,
    };
    let cache = match is_found && site.is_immutable(path) {
        true => FOREVER,
        false => ASK_AGAIN,
    };
    let mut head = head(status, stays);
    let _ = write!(head, "etag: {}\r\ncache-control: {cache}\r\n", content.mark);
    if let Some(modified) = modified {
        let _ = write!(head, "last-modified: {modified}\r\n");
    }
    if content.varies {
        head.push_str("vary: accept-encoding\r\n");
    }
    if known {
        head.push_str("\r\n");
        return output.write_all(head.as_bytes());
    }
    let (from, length) = match part {
        Part::Of(first, last) => (first, last - first + 1),
        Part::Whole => (0, content.size),
        Part::None => (0, 0),
    };
    match part {
        Part::Of(first, last) => {
            let _ = write!(
                head,
                "content-range: bytes {first}-{last}/{}\r\n",
                content.size
            );
        }
        Part::None => {
            let _ = write!(head, "content-range: bytes */{}\r\n", content.size);
        }
        Part::Whole => {}
    }
    if let Some(coding) = content.coding {
        let _ = write!(head, "content-encoding: {coding}\r\n");
    }
    let _ = write!(
        head,
        "content-type: {}\r\nx-content-type-options: nosniff\r\naccept-ranges: bytes\r\n\
         content-length: {length}\r\n\r\n",
        kind::of(path)
    );
    let length = if request.is_head { 0 } else { length };
    send(head, content, from, length, output)
}

fn send(
    head: String,
    content: Content,
    from: u64,
    length: u64,
    output: &mut TcpStream,
) -> io::Result<()> {
    let Content { mut file, .. } = content;
    if from > 0 {
        file.seek(SeekFrom::Start(from))?;
    }
    let mut body: io::Take<File> = file.take(length);
    if length > SMALL {
        output.write_all(head.as_bytes())?;
        // By sendfile(2).
        return match io::copy(&mut body, output)? {
            sent if sent == length => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
    }
    let mut all = head.into_bytes();
    body.read_to_end(&mut all)?;
    output.write_all(&all)
}

fn encoded(parts: &[OsString]) -> String {
    let mut path = String::new();
    for part in parts {
        path.push('/');
        for &byte in part.as_encoded_bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    path.push(char::from(byte));
                }
                _ => {
                    let _ = write!(path, "%{byte:02X}");
                }
            }
        }
    }
    path
}
