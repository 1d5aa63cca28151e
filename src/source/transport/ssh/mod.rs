//! Git's protocol over the system's `ssh`: its ciphers, its known_hosts and its updates are those that
//! the machine's administrator knows.

mod address;
mod ended;
mod host_key;
pub(crate) mod key;
mod process;

use std::io::{self, Read, Write};
use std::sync::Arc;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use git2::{Error, Remote};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::session::{Failure, SILENCE, Session};
use address::Address;
use ended::Ended;
use process::Process;

pub fn transport(remote: &Remote<'_>, session: Arc<Session>) -> Result<Transport, Error> {
    let process = Arc::default();
    Transport::smart(remote, false, Ssh { session, process })
}

/// Of what a server says about its Git LFS, in bytes.
const LONGEST: u64 = 64 << 10;

type Running = Arc<Mutex<Option<(Process, Address)>>>;

struct Ssh {
    session: Arc<Session>,
    process: Running,
}

impl SmartSubtransport for Ssh {
    fn action(
        &self,
        url: &str,
        service: Service,
    ) -> Result<Box<dyn SmartSubtransportStream>, Error> {
        if service != Service::UploadPackLs {
            return Err(Error::from_str("pushing is not supported"));
        }
        self.session.begin();
        let started = start(&self.session, url).map_err(|failure| {
            let error = self.session.fail(failure);
            Error::from_str(&error.to_string())
        })?;
        *self.process.lock() = Some(started);
        Ok(Box::new(Stream {
            session: self.session.clone(),
            process: self.process.clone(),
        }))
    }

    fn close(&self) -> Result<(), Error> {
        if let Some((process, _)) = self.process.lock().take() {
            process.stop(&self.session);
        }
        Ok(())
    }
}

fn start(session: &Session, url: &str) -> Result<(Process, Address), Failure> {
    started(session, url, address::command)
}

/// Starts the command that `command` makes of the repository's path.
fn started(
    session: &Session,
    url: &str,
    command: fn(&str) -> String,
) -> Result<(Process, Address), Failure> {
    let address = address::parse(url)
        .ok_or_else(|| Failure::Unreachable("its address is not one of ssh".into()))?;
    let key = session.source.ssh_key.as_deref();
    let key = key.map(key::open).transpose().map_err(Failure::Refused)?;
    if let Some(pinned) = &session.source.host_key {
        host_key::keep(session, &address, pinned)?;
    }
    let process = Process::start(session, &address, key, &command(&address.path))?;
    Ok((process, address))
}

/// What the server says about its Git LFS: an address and what to send along, in JSON.
pub fn ask_for_lfs(session: &Session, url: &str) -> Result<Vec<u8>, Failure> {
    session.begin();
    let (mut process, address) = started(session, url, address::lfs_command)?;
    let mut said = Vec::new();
    let mut stdout = (&mut process.stdout).take(LONGEST);
    let read = session.wait(SILENCE, stdout.read_to_end(&mut said));
    match read {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(Failure::Unreachable(error.to_string())),
        Err(stopped) => return Err(stopped),
    }
    ended(session, Some((process, address)))?;
    Ok(said)
}

/// Both ways: `ssh`'s standard input and output.
struct Stream {
    session: Arc<Session>,
    process: Running,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut running = self.process.lock();
        let Some((process, _)) = &mut *running else {
            return Ok(0);
        };
        let read = (self.session).wait(SILENCE, process.stdout.read(into));
        let done = match read {
            Ok(Ok(read)) if read > 0 || into.is_empty() => return Ok(read),
            Ok(_) => ended(&self.session, running.take()),
            Err(stopped) => Err(stopped),
        };
        done.map(|()| 0)
            .map_err(|failure| self.session.fail(failure))
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut running = self.process.lock();
        let Some((process, _)) = &mut *running else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let written = (self.session).wait(SILENCE, process.stdin.write(bytes));
        let failure = match written {
            Ok(Ok(written)) => return Ok(written),
            Ok(Err(error)) => match ended(&self.session, running.take()) {
                Ok(()) => Failure::Unreachable(error.to_string()),
                Err(failure) => failure,
            },
            Err(stopped) => stopped,
        };
        Err(self.session.fail(failure))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Why there is no more to read.
fn ended(session: &Session, running: Option<(Process, Address)>) -> Result<(), Failure> {
    let Some((process, address)) = running else {
        return Ok(());
    };
    let (status, said) = process.end(session)?;
    if status.success() {
        return Ok(());
    }
    Err(match ended::why(status, &said) {
        Ended::Broken(why) => Failure::Unreachable(why),
        Ended::Denied(of_key) => Failure::Refused(denied(session, of_key)),
        Ended::Unknown => unknown(session, &address),
    })
}

fn denied(session: &Session, of_key: Option<String>) -> String {
    if session.source.ssh_key.is_none() {
        return "the server requires a key, but `ssh_key` is not configured".into();
    }
    let said = of_key.map_or_else(String::new, |said| format!(" ({said})"));
    format!("the server did not accept the key{said}")
}

fn unknown(session: &Session, address: &Address) -> Failure {
    let shown = host_key::scan(session, address).unwrap_or_default();
    let shown = shown.first().map(|key| key.fingerprint.as_str());
    host_key::unknown(session.source.host_key.as_deref(), shown)
}
