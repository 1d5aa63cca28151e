//! One file of Git LFS: fetched, checked and put in its place.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::LOCATION;
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};

use super::action::Action;
use super::request::{Answer, send};
use super::{Stored, made};
use crate::source::transport::{Failure, Session};

/// How many redirects are followed.
const REDIRECTS: usize = 5;

pub(super) enum Error {
    Failed(Failure),
    Disk(io::Error),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Puts the file in its place when all of it is there and right.
pub(super) fn download(
    session: &Arc<Session>,
    action: &Action,
    file: &Stored,
    to: &Path,
) -> Result<(), Error> {
    let mut answer = get(session, action)?;
    made(to.parent())?;
    let temp = to.with_extension("part");
    let written = write(session, &mut answer, file, &temp);
    match written {
        Ok(()) => Ok(fs::rename(&temp, to)?),
        Err(error) => {
            let _ = fs::remove_file(&temp);
            Err(error)
        }
    }
}

fn get(session: &Session, action: &Action) -> Result<Answer, Failure> {
    let (mut url, mut headers) = action.target()?;
    for _ in 0..=REDIRECTS {
        let mut answer = send(session, Method::GET, &url, &headers, Bytes::new())?;
        if answer.status == StatusCode::OK {
            return Ok(answer);
        }
        let to = answer.headers.get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.and_then(|to| url.join(to).ok());
        let Some(to) = to.filter(|_| answer.status.is_redirection()) else {
            return Err(answer.refusal(session));
        };
        if to.scheme() != "https" && to.scheme() != url.scheme() {
            let why = "its Git LFS redirects from https to http";
            return Err(Failure::Unreachable(why.into()));
        }
        // What is for one server is not for another.
        if to.origin() != url.origin() {
            headers.clear();
        }
        url = to;
    }
    let why = format!("its Git LFS redirects more than {REDIRECTS} times");
    Err(Failure::Unreachable(why))
}

fn write(session: &Session, answer: &mut Answer, file: &Stored, to: &Path) -> Result<(), Error> {
    let wrong = |what: &str| {
        let oid = &file.oid[..12];
        Failure::Unreachable(format!("what its Git LFS sends as `{oid}…` {what}"))
    };
    let mut into = File::create(to)?;
    let mut hash = Sha256::new();
    let mut size = 0;
    while let Some(piece) = answer.piece(session)? {
        size += piece.len() as u64;
        if size > file.size {
            return Err(wrong("is longer than its pointer says").into());
        }
        hash.update(&piece);
        into.write_all(&piece)?;
    }
    if size < file.size {
        return Err(wrong("is shorter than its pointer says").into());
    }
    if hex::encode(hash.finalize()) != file.oid {
        return Err(wrong("is another file").into());
    }
    // Found again after a power failure, it would be taken for whole.
    into.sync_all()?;
    Ok(())
}

/// Whether the file at `path` is that one.
pub(super) fn is(path: &Path, file: &Stored) -> bool {
    let hash = || {
        let mut from = File::open(path)?;
        if from.metadata()?.len() != file.size {
            return Ok(false);
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match from.read(&mut buffer)? {
                0 => return io::Result::Ok(hex::encode(hash.finalize()) == file.oid),
                read => hash.update(&buffer[..read]),
            }
        }
    };
    hash().unwrap_or(false)
}
