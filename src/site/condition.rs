//! What a client has already, and which part it wants.

use crate::date;
use crate::request::Request;

pub enum Part {
    /// From the first to the last byte.
    Of(u64, u64),
    Whole,
    /// It has no such part.
    None,
}

/// Whether the client wants an answer only about a content that this one is not (RFC 9110, 13.2.2).
pub fn has_changed(request: &Request, mark: &str, modified: Option<&str>) -> bool {
    match (&request.if_match, &request.if_unmodified_since) {
        (Some(marks), _) => {
            let mut marks = marks.split(',').map(str::trim);
            !marks.any(|it| it == "*" || it == mark)
        }
        (None, Some(time)) => match (modified.and_then(date::order), date::order(time)) {
            (Some(modified), Some(time)) => modified > time,
            _ => false,
        },
        (None, None) => false,
    }
}

/// Whether the client has this content.
pub fn is_known(request: &Request, mark: &str, modified: Option<&str>) -> bool {
    match (&request.if_none_match, &request.if_modified_since) {
        (Some(marks), _) => {
            let mut marks = marks.split(',').map(str::trim);
            marks.any(|it| it == "*" || it.strip_prefix("W/").unwrap_or(it) == mark)
        }
        // The time that it was told; a client does not make up others.
        (None, Some(time)) => Some(time.as_str()) == modified,
        (None, None) => false,
    }
}

pub fn part(request: &Request, mark: &str, modified: Option<&str>, size: u64) -> Part {
    let Some(range) = &request.range else {
        return Part::Whole;
    };
    if request
        .if_range
        .as_ref()
        .is_some_and(|it| it != mark && Some(it.as_str()) != modified)
    {
        return Part::Whole;
    }
    // Several parts at once are answered with everything.
    let range = range.strip_prefix("bytes=").filter(|it| !it.contains(','));
    let Some((first, last)) = range.and_then(|it| it.trim().split_once('-')) else {
        return Part::Whole;
    };
    let end = size.saturating_sub(1);
    // A number too large for any file is one beyond its end.
    let number = |text: &str| match text.bytes().all(|byte| byte.is_ascii_digit()) {
        true if !text.is_empty() => Ok(text.parse::<u64>().unwrap_or(u64::MAX)),
        _ => Err(()),
    };
    match (number(first), number(last)) {
        (Ok(first), Ok(last)) if first > last => Part::Whole,
        (Ok(first), _) if first >= size => Part::None,
        (Ok(first), Ok(last)) => Part::Of(first, last.min(end)),
        (Ok(first), Err(_)) if last.is_empty() => Part::Of(first, end),
        (Err(_), Ok(last)) if first.is_empty() => match last.min(size) {
            0 => Part::None,
            length => Part::Of(size - length, end),
        },
        _ => Part::Whole,
    }
}
