//! How libgit2 reaches a server: over http and https with this crate's own TLS, over ssh with the
//! system's `ssh`. libgit2 speaks git's protocol and leaves the bytes to these.

mod http;
mod session;
pub(crate) mod ssh;

pub(super) use http::{is_limit, token_for};
pub(super) use session::{CONNECT, Failed, Failure, SILENCE, Session};
pub(super) use ssh::ask_for_lfs;

use std::cell::RefCell;
use std::sync::Arc;

use git2::transport::Transport;
use git2::{Error, Remote};

type Make = fn(&Remote<'_>, Arc<Session>) -> Result<Transport, Error>;

const SCHEMES: [(&str, Make); 3] = [
    ("http", http::transport),
    ("https", http::transport),
    ("ssh", ssh::transport),
];

thread_local! {
    /// libgit2 makes a transport in the midst of a connect and hands nothing of ours to it.
    static CURRENT: RefCell<Option<Arc<Session>>> = const { RefCell::new(None) };
}

/// Registers these in place of libgit2's own.
///
/// # Safety
///
/// No other thread may be about to connect.
#[allow(unsafe_code)]
pub(super) unsafe fn register() -> Result<(), Error> {
    for (scheme, make) in SCHEMES {
        let factory = move |remote: &Remote<'_>| {
            let session = CURRENT.with_borrow(Clone::clone);
            make(
                remote,
                session.ok_or_else(|| Error::from_str("no fetch is under way"))?,
            )
        };
        // SAFETY: the caller's promise.
        unsafe { git2::transport::register(scheme, factory)? };
    }
    Ok(())
}

/// While this lives, connections of this thread belong to the session.
pub(super) struct Entered;

pub(super) fn enter(session: Arc<Session>) -> Entered {
    CURRENT.set(Some(session));
    Entered
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}
