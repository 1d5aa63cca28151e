//! The system's `ssh`, run for one fetch.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::address::Address;
use super::key::Key;
use crate::config::Source;
use crate::source::transport::session::{CONNECT, Failure, SILENCE, Session};

/// How much of what `ssh` says is kept, in bytes.
const SAID: u64 = 8 << 10;
/// How long it may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(200);
/// How long it may take to end once it has nothing more to send.
const END: Duration = Duration::from_secs(5);
/// The machine's settings apply (a proxy, old ciphers), but none of whoever starts the agent.
const SYSTEM: &str = "/etc/ssh/ssh_config";

pub struct Process {
    child: Child,
    pub stdin: ChildStdin,
    pub stdout: ChildStdout,
    said: JoinHandle<String>,
    // Read by `ssh` when the server asks for it.
    _key: Option<Key>,
}

/// A program of the system's OpenSSH, without this process's environment, which holds secrets.
pub fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // A Ctrl-C is for the agent to act on.
    command.process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null());
    command
}

impl Process {
    /// Starts it with a command for the server's shell. An error is one sentence.
    pub fn start(
        session: &Session,
        address: &Address,
        key: Option<Key>,
        command: &str,
    ) -> Result<Self, Failure> {
        let mut ssh = program("ssh");
        if Path::new(SYSTEM).exists() {
            ssh.args(["-F", SYSTEM]);
        } else {
            ssh.args(["-F", "none"]);
        }
        ssh.args(["-T", "-x", "-a"]);
        for option in options(key.is_some()) {
            ssh.args(["-o", &option]);
        }
        if session.source.host_key.is_some() {
            pin(&mut ssh, &session.host_key);
        }
        if let Some(key) = &key {
            ssh.arg("-i").arg(&key.path);
        }
        if let Some(port) = address.port {
            ssh.args(["-p", &port.to_string()]);
        }
        ssh.args(["-l", user(address, &session.source)]);
        ssh.args(["--", &address.host, command]);
        ssh.stdin(Stdio::piped());
        ssh.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = session.wait(SILENCE, async move {
            let mut child = ssh.spawn()?;
            let gone = || io::Error::other("it has no pipe");
            let stdin = child.stdin.take().ok_or_else(gone)?;
            let stdout = child.stdout.take().ok_or_else(gone)?;
            let said = tokio::spawn(read(child.stderr.take().ok_or_else(gone)?));
            Ok(Self {
                child,
                stdin,
                stdout,
                said,
                _key: key,
            })
        })?;
        started.map_err(|error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Failure::Unreachable(
                "the program `ssh` is not installed (`apt-get install openssh-client`)".into(),
            ),
            _ => Failure::Unreachable(format!("the program `ssh` cannot be started: {error}")),
        })
    }

    /// How it ended, and what it said, once it sends nothing more.
    pub fn end(mut self, session: &Session) -> Result<(ExitStatus, String), Failure> {
        drop(self.stdin);
        let ended = session.wait(END, async {
            let status = self.child.wait().await?;
            Ok((status, self.said.await.unwrap_or_default()))
        });
        ended?.map_err(|error: io::Error| Failure::Unreachable(format!("`ssh`: {error}")))
    }

    /// Ends it, whatever it does.
    pub fn stop(mut self, session: &Session) {
        drop(self.stdin);
        drop(self.stdout);
        let _ = session.wait(GOODBYE, self.child.wait());
        // It is dead, or dies now; either way it is reaped.
        let _ = self.child.start_kill();
    }
}

pub fn user<'a>(address: &'a Address, source: &'a Source) -> &'a str {
    let user = address.user.as_deref().or(source.username.as_deref());
    user.unwrap_or("git")
}

fn options(has_key: bool) -> Vec<String> {
    let timeout = format!("ConnectTimeout={}", CONNECT.as_secs());
    let key = match has_key {
        true => "PubkeyAuthentication=yes",
        false => "PubkeyAuthentication=no",
    };
    let all = [
        &timeout,
        key,
        "LogLevel=ERROR",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
        "UpdateHostKeys=no",
        "PreferredAuthentications=publickey",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "ClearAllForwardings=yes",
        "ControlMaster=no",
        "ControlPath=none",
        "PermitLocalCommand=no",
        "ServerAliveInterval=15",
        "ServerAliveCountMax=2",
    ];
    all.map(str::to_owned).into()
}

/// Trusts the keys in this file and no others.
fn pin(ssh: &mut Command, file: &Path) {
    // Its folder is not named: `ssh` would take apart a path with spaces or percent signs.
    if let (Some(folder), Some(name)) = (file.parent(), file.file_name()) {
        ssh.current_dir(folder);
        let name = name.to_string_lossy();
        ssh.args(["-o", &format!("UserKnownHostsFile={name}")]);
    }
    ssh.args(["-o", "GlobalKnownHostsFile=/dev/null"]);
    ssh.args(["-o", "VerifyHostKeyDNS=no"]);
    // Unknown before OpenSSH 8.5.
    ssh.args(["-o", "IgnoreUnknown=KnownHostsCommand"]);
    ssh.args(["-o", "KnownHostsCommand=none"]);
}

/// The end of what is read, which may be long.
async fn read(mut from: impl AsyncRead + Unpin) -> String {
    let mut all = Vec::new();
    loop {
        match (&mut from).take(SAID).read_to_end(&mut all).await {
            Ok(read) if read > 0 => {}
            _ => return String::from_utf8_lossy(&all).into_owned(),
        }
        let most = usize::try_from(SAID).unwrap_or(usize::MAX);
        all.drain(..all.len().saturating_sub(most));
    }
}
