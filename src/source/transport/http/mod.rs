//! Git's smart protocol over HTTP (gitprotocol-http): a GET for the refs, then a POST for each round
//! of the negotiation, the last of which is answered with the pack.

mod answer;
mod client;
mod step;
mod token;

use std::io::{self, Read, Write};
use std::sync::Arc;

use ::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use ::http::{HeaderMap, Response};
use bytes::{Buf, Bytes};
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{Error, Remote};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use parking_lot::Mutex;

use super::session::{Failure, SILENCE, Session};
pub use answer::is_limit;
pub use token::header as token_for;

use client::Client;
use step::Step;

pub fn transport(remote: &Remote<'_>, session: Arc<Session>) -> Result<Transport, Error> {
    let client = Arc::new(Mutex::new(Client::new(session.clone())));
    Transport::smart(remote, true, Http { session, client })
}

struct Http {
    session: Arc<Session>,
    client: Arc<Mutex<Client>>,
}

impl SmartSubtransport for Http {
    fn action(
        &self,
        url: &str,
        service: Service,
    ) -> Result<Box<dyn SmartSubtransportStream>, Error> {
        let step = match service {
            Service::UploadPackLs => Step::Refs,
            Service::UploadPack => Step::Pack,
            _ => return Err(Error::from_str("pushing is not supported")),
        };
        if step == Step::Refs {
            self.session.begin();
        }
        (self.client.lock().open(url)).map_err(|why| {
            let error = self.session.fail(Failure::Unreachable(why));
            Error::from_str(&error.to_string())
        })?;
        Ok(Box::new(Stream {
            session: self.session.clone(),
            client: self.client.clone(),
            step,
            question: Vec::new(),
            answer: None,
        }))
    }

    fn close(&self) -> Result<(), Error> {
        self.client.lock().close();
        Ok(())
    }
}

/// One request: what is written is its body, what is read is the answer's.
struct Stream {
    session: Arc<Session>,
    client: Arc<Mutex<Client>>,
    step: Step,
    question: Vec<u8>,
    answer: Option<Answer>,
}

struct Answer {
    body: Incoming,
    /// What libgit2 had no room for.
    left: Bytes,
    /// Only the connection's end ends it.
    is_open_ended: bool,
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.question.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.received(into);
        read.map_err(|failure| self.session.fail(failure))
    }
}

impl Stream {
    fn received(&mut self, into: &mut [u8]) -> Result<usize, Failure> {
        let answer = match &mut self.answer {
            Some(answer) => answer,
            none => {
                let question = Bytes::from(std::mem::take(&mut self.question));
                none.insert(self.client.lock().ask(self.step, &question)?.into())
            }
        };
        while answer.left.is_empty() {
            match self.session.wait(SILENCE, answer.body.frame())? {
                None => return Ok(0),
                Some(Ok(frame)) => answer.left = frame.into_data().unwrap_or_default(),
                // Servers of HTTP/1.0 end TLS without a word; git's packs end with a checksum.
                Some(Err(error)) if answer.is_open_ended && is_end(&error) => return Ok(0),
                Some(Err(error)) => {
                    let why = crate::outbound::causes(&error).last();
                    let why = why.map_or_else(String::new, ToString::to_string);
                    return Err(Failure::Unreachable(format!(
                        "its answer breaks off: {why}"
                    )));
                }
            }
        }
        let read = into.len().min(answer.left.len());
        answer.left.copy_to_slice(&mut into[..read]);
        Ok(read)
    }
}

fn is_end(error: &hyper::Error) -> bool {
    crate::outbound::causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

impl From<Response<Incoming>> for Answer {
    fn from(answer: Response<Incoming>) -> Self {
        let has = |headers: &HeaderMap| {
            headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING)
        };
        Self {
            is_open_ended: !has(answer.headers()),
            body: answer.into_body(),
            left: Bytes::new(),
        }
    }
}
