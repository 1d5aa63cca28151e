//! The private key of `ssh_key`, in a form that `ssh` accepts.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{MemfdFlags, Mode};

/// In bytes.
const LONGEST: u64 = 64 << 10;

/// A key file that `ssh` can read while this lives.
pub struct Key {
    pub path: PathBuf,
    // Holds the copy.
    _copy: Option<File>,
}

/// Checks the key: what `ssh` says of a bad one is only that the server has refused it. A key that
/// others may read (as those that a container's secrets are mounted with), or that lacks its last
/// newline, is passed as a copy in memory, since `ssh` would not use it. An error is one sentence.
pub fn open(path: &Path) -> Result<Key, String> {
    let shown = path.display();
    let unreadable = |error| format!("the key `{shown}` cannot be read: {error}");
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    let mut text = String::new();
    (file.take(LONGEST).read_to_string(&mut text)).map_err(unreadable)?;
    check(&text).map_err(|why| format!("the key `{shown}` {why}"))?;
    let is_plain = |path: &Path| {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || b"/._-+@,:=".contains(b);
        path.is_absolute() && path.as_os_str().as_encoded_bytes().iter().all(plain)
    };
    if mode & 0o077 == 0 && text.ends_with('\n') && !text.contains('\r') && is_plain(path) {
        return Ok(Key {
            path: path.to_owned(),
            _copy: None,
        });
    }
    let text = text.replace('\r', "");
    let copied = copy(text.trim_end()).map_err(|error| {
        format!("the key `{shown}` cannot be passed to `ssh`: {error}; make it readable by its owner only")
    })?;
    Ok(Key {
        path: format!("/proc/{}/fd/{}", std::process::id(), copied.as_raw_fd()).into(),
        _copy: Some(copied),
    })
}

fn copy(text: &str) -> std::io::Result<File> {
    let copy = rustix::fs::memfd_create("ssh-key", MemfdFlags::CLOEXEC)?;
    rustix::fs::fchmod(&copy, Mode::RUSR)?;
    let mut copy = File::from(copy);
    writeln!(copy, "{text}")?;
    copy.rewind()?;
    Ok(copy)
}

/// Whether the text is a private key without a passphrase, in OpenSSH's format or in PEM.
fn check(text: &str) -> Result<(), &'static str> {
    const ENCRYPTED: &str = "has a passphrase, which nobody is there to enter: remove it with \
                             `ssh-keygen -p -N ''`, or use a deploy key without one";
    let text = text.trim();
    let Some((kind, body)) =
        (text.strip_prefix("-----BEGIN ")).and_then(|rest| rest.split_once("PRIVATE KEY-----"))
    else {
        return Err("is not a private key");
    };
    if !body.contains("-----END ") {
        return Err("is cut off");
    }
    if kind == "ENCRYPTED " || body.contains("ENCRYPTED") {
        return Err(ENCRYPTED);
    }
    if kind != "OPENSSH " {
        return Ok(());
    }
    let body: String = body
        .lines()
        .take_while(|line| !line.starts_with('-'))
        .collect();
    let body = STANDARD.decode(body.replace('\r', "").trim());
    // `openssh-key-v1`, a zero byte, then the cipher's name behind its length.
    match body
        .ok()
        .as_deref()
        .and_then(|key| key.strip_prefix(b"openssh-key-v1\0"))
    {
        Some(key) if key.starts_with(b"\0\0\0\x04none") => Ok(()),
        Some(_) => Err(ENCRYPTED),
        None => Err("is damaged"),
    }
}
