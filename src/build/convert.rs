//! A file as a checkout has it: with the line ends, the id and the encoding that its attributes ask for.

use git2::Oid;

use super::attributes::{Attributed, Crlf};
use super::encode::encoded;

/// `None`: as git holds it.
pub(super) fn converted(id: Oid, content: &[u8], how: Attributed) -> Option<Vec<u8>> {
    let with_id = how.ident.then(|| with_id(id, content)).flatten();
    let content = with_id.as_deref().unwrap_or(content);
    let with_returns = how.crlf.and_then(|crlf| with_returns(content, crlf));
    let encoding = how.encoding.and_then(|encoding| {
        let content = with_returns.as_deref().unwrap_or(content);
        encoded(content, encoding)
    });
    encoding.or(with_returns).or(with_id)
}

fn with_returns(content: &[u8], crlf: Crlf) -> Option<Vec<u8>> {
    let is_return = |at: usize| content.get(at) == Some(&b'\r');
    let is_lone = |at: usize| at == 0 || !is_return(at - 1);
    let mut feeds = memchr::memchr_iter(b'\n', content);
    if !feeds.any(is_lone) || (crlf == Crlf::Auto && !is_plain_text(content)) {
        return None;
    }
    let mut text = Vec::with_capacity(content.len() + content.len() / 16);
    for (at, byte) in content.iter().enumerate() {
        if *byte == b'\n' && is_lone(at) {
            text.push(b'\r');
        }
        text.push(*byte);
    }
    Some(text)
}

/// Text whose lines all end with a line feed alone: git leaves everything else as it is.
fn is_plain_text(content: &[u8]) -> bool {
    if content.contains(&b'\r') {
        return false;
    }
    let is_control = |byte: &&u8| matches!(**byte, 0..=7 | 11 | 14..=26 | 28..=31 | 127);
    let controls = content.iter().filter(is_control).count();
    let feeds = memchr::memchr_iter(b'\n', content).count();
    let printable = content.len() - controls - feeds;
    // An end-of-file character at the end is none.
    let controls = controls - usize::from(content.last() == Some(&26));
    !content.contains(&0) && printable >> 7 >= controls
}

/// With `$Id$` as `$Id: the file's id $`. What another system has put there, of several words, stays.
fn with_id(id: Oid, content: &[u8]) -> Option<Vec<u8>> {
    const BEGIN: &[u8] = b"$Id";
    let mut text = Vec::new();
    let mut done = 0;
    for at in memchr::memmem::find_iter(content, BEGIN) {
        let rest = &content[at + BEGIN.len()..];
        let length = match rest.first() {
            Some(b'$') => 1,
            Some(b':') => {
                let Some(end) = memchr::memchr2(b'$', b'\n', rest).filter(|end| rest[*end] == b'$')
                else {
                    continue;
                };
                let words = rest.get(2..end).unwrap_or_default();
                let space = memchr::memchr(b' ', words);
                if space.is_some_and(|space| space + 1 < words.len()) {
                    continue;
                }
                end + 1
            }
            _ => continue,
        };
        if at < done {
            continue;
        }
        text.extend_from_slice(&content[done..at]);
        text.extend_from_slice(format!("$Id: {id} $").as_bytes());
        done = at + BEGIN.len() + length;
    }
    (done > 0).then(|| {
        text.extend_from_slice(&content[done..]);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_converted_as_git_does() {
        let id = Oid::from_bytes(&[0xab; 20]).unwrap();
        let how = |crlf, ident| Attributed {
            crlf,
            ident,
            ..Attributed::default()
        };
        let (always, auto) = (how(Some(Crlf::Always), false), how(Some(Crlf::Auto), false));
        let said = format!("x $Id: {id} $ y\n");
        for (content, how, expected) in [
            ("a\nb\n", always, Some("a\r\nb\r\n")),
            ("a\r\nb\n\n", always, Some("a\r\nb\r\n\r\n")),
            ("a\r\n", always, None),
            ("a\0\n", always, Some("a\0\r\n")),
            ("a\nb", auto, Some("a\r\nb")),
            ("a\r\nb\n", auto, None),
            ("a\0\n", auto, None),
            ("x $Id$ y\n", how(None, true), Some(&*said)),
            ("x $Id: 12 $ y\n", how(None, true), Some(&*said)),
            ("x $Id: a.c 1.2 Ann $ y\n", how(None, true), None),
            ("x $Id: no\nend$ $Idx$\n", how(None, true), None),
            ("x $Id$ y\n", how(None, false), None),
        ] {
            let made = converted(id, content.as_bytes(), how);
            let made = made.map(|text| String::from_utf8(text).unwrap());
            assert_eq!(made.as_deref(), expected, "{content:?}");
        }
    }
}
