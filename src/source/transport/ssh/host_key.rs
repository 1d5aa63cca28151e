//! The server's key, when deploy.toml pins it by its fingerprint: `ssh` wants it whole, so it is asked
//! for, compared and kept.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;

use super::address::Address;
use super::process::program;
use crate::source::transport::session::{CONNECT, Failure, Session};

/// In bytes; a server has a handful of keys.
const MOST: u64 = 64 << 10;
/// The best first, which is the one that a person is shown.
const KINDS: &str = "ed25519,ecdsa,rsa";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh-ed25519 AAAA…`
    text: String,
    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
}

/// Writes the pinned key to the session's file for `ssh` to read.
pub fn keep(session: &Session, address: &Address, pinned: &str) -> Result<(), Failure> {
    let pinned = pinned.trim_end_matches('=');
    let file = &session.host_key;
    let kept = std::fs::read_to_string(file).unwrap_or_default();
    if kept
        .lines()
        .filter_map(parse)
        .any(|key| key.fingerprint == pinned)
    {
        return Ok(());
    }
    let shown = scan(session, address)?;
    let key = shown.iter().find(|key| key.fingerprint == pinned);
    let text = match (key, shown.first()) {
        (Some(key), _) => format!("* {}\n", key.text),
        (None, Some(key)) => return Err(unknown(Some(pinned), Some(key.fingerprint.as_str()))),
        // Then `ssh` says why it is not reached.
        (None, None) => String::new(),
    };
    std::fs::write(file, text).map_err(|error| {
        let file = file.display();
        Failure::Unreachable(format!("its key cannot be written to `{file}`: {error}"))
    })
}

/// The keys that the server shows; none if it cannot be reached.
pub fn scan(session: &Session, address: &Address) -> Result<Vec<HostKey>, Failure> {
    let mut command = program("ssh-keyscan");
    let limit = CONNECT.as_secs().to_string();
    command.args(["-T", &limit, "-t", KINDS]);
    if let Some(port) = address.port {
        command.args(["-p", &port.to_string()]);
    }
    command.args(["--", &address.host]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let scanned = session.wait(CONNECT + Duration::from_secs(5), async {
        let mut child = command.spawn()?;
        let mut text = String::new();
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MOST).read_to_string(&mut text).await?;
        }
        child.wait().await?;
        std::io::Result::Ok(text)
    });
    let text = match scanned {
        Ok(Ok(text)) => text,
        Err(Failure::Stopped) => return Err(Failure::Stopped),
        _ => return Ok(Vec::new()),
    };
    let mut keys: Vec<HostKey> = text.lines().filter_map(parse).collect();
    let rank = |key: &HostKey| {
        let kind = |kind| key.text.contains(kind);
        KINDS.split(',').position(kind)
    };
    keys.sort_by_key(rank);
    Ok(keys)
}

/// A line of known_hosts.
fn parse(line: &str) -> Option<HostKey> {
    let line = line.trim();
    let mut fields = line.split_ascii_whitespace();
    let (_, kind, key) = (fields.next()?, fields.next()?, fields.next()?);
    if line.starts_with(['#', '@']) {
        return None;
    }
    let hash = Sha256::digest(STANDARD.decode(key).ok()?);
    Some(HostKey {
        text: format!("{kind} {key}"),
        fingerprint: format!("SHA256:{}", STANDARD_NO_PAD.encode(hash)),
    })
}

/// The error for a server whose key is not the expected one.
pub fn unknown(pinned: Option<&str>, shown: Option<&str>) -> Failure {
    let correct = "if the server's key has really changed, correct the app's `source.host_key` in deploy.toml";
    let (why, hint) = match (pinned, shown) {
        (Some(pinned), Some(key)) => (
            format!("it shows the key `{key}`, and `{pinned}` is pinned"),
            correct.to_owned(),
        ),
        (Some(pinned), None) => (
            format!("it does not show the key `{pinned}`, which is pinned"),
            correct.to_owned(),
        ),
        (None, Some(key)) => (
            format!("its key `{key}` is not in known_hosts"),
            format!(
                "compare it with what the server's owner publishes, then set the app's `source.host_key = \"{key}\"` in deploy.toml"
            ),
        ),
        (None, None) => (
            "its key is not in known_hosts".to_owned(),
            "set the app's `source.host_key` in deploy.toml to what the server's owner publishes"
                .to_owned(),
        ),
    };
    Failure::UnknownServer { why, hint }
}
