//! Hands the listening sockets from the running proxy to the one that replaces it. For a moment both
//! accept from them, so that no connection is refused; then the old one drains and exits. Until then it
//! stays reachable at a socket of its own, and the new one passes tables and drains on to it: the old
//! one's requests count for as long as there are any.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;

use super::{Answer, Command, SOCKET};
use crate::proxy::worker;

/// The most sockets that are handed over: one plain and one TLS socket for each thread.
const MAX_SOCKETS: usize = 4 * worker::MAX;
const ANSWER: Duration = Duration::from_secs(10);

/// The message that accompanies the sockets.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Offer {
    /// The control socket at which the old proxy answers from now on.
    pub socket: PathBuf,
}

/// The sockets of the running proxy. If it is dropped without [`Takeover::release`], that proxy keeps
/// serving.
pub struct Takeover {
    pub listeners: Vec<TcpListener>,
    /// The control socket at which the old proxy answers until it has exited.
    pub predecessor: PathBuf,
    stream: UnixStream,
}

impl Takeover {
    /// Whether the old proxy is still waiting for this one to serve.
    pub fn is_offered(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let read = rustix::net::recv(&self.stream, &mut [0; 1][..], flags);
        matches!(read, Err(rustix::io::Errno::AGAIN))
    }

    /// The old proxy's process.
    pub fn pid(&self) -> Option<Pid> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream);
        peer.ok().map(|peer| peer.pid)
    }

    /// Tells the old proxy to shut down. Blocks.
    pub fn release(self) -> io::Result<()> {
        say(&self.stream, &Command::Release)?;
        let mut line = String::new();
        BufReader::new(&self.stream).read_line(&mut line)?;
        match serde_json::from_str(&line)? {
            Answer::Done(()) => Ok(()),
            Answer::Refused(why) => Err(io::Error::other(why)),
        }
    }
}

/// Requests the listening sockets of the proxy that runs in `folder`. Blocks.
pub fn take(folder: &Path) -> io::Result<Takeover> {
    let stream = UnixStream::connect(folder.join(SOCKET))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    say(&stream, &Command::Takeover)?;

    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = vec![0; 4096];
    let got = recvmsg(
        &stream,
        &mut [IoSliceMut::new(&mut text)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut listeners = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            listeners.extend(descriptors.map(TcpListener::from));
        }
    }
    match serde_json::from_slice(&text[..got.bytes])? {
        Answer::Done(Offer { socket }) if !listeners.is_empty() => Ok(Takeover {
            listeners,
            predecessor: socket,
            stream,
        }),
        Answer::Done(_) => Err(io::Error::other("the running proxy sent no sockets")),
        Answer::Refused(why) => Err(io::Error::other(why)),
    }
}

fn say(mut stream: &UnixStream, command: &Command) -> io::Result<()> {
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Sends the reply, and the sockets with it.
pub(super) async fn give(
    stream: &tokio::net::UnixStream,
    offer: Offer,
    sockets: &[OwnedFd],
) -> io::Result<()> {
    let mut line = serde_json::to_vec(&Answer::Done(offer))?;
    line.push(b'\n');
    let send = || {
        let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let text = [IoSlice::new(&line)];
        Ok(sendmsg(stream, &text, &mut ancillary, SendFlags::NOSIGNAL)?)
    };
    // One short line: the kernel takes all of it or nothing.
    stream.async_io(Interest::WRITABLE, send).await?;
    Ok(())
}
