//! Whether a commit is signed by one of the keys that deploy.toml requires: `gpg.format = ssh` of git,
//! verified by OpenSSH's `ssh-keygen`. Nothing of the repository's own configuration is used.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use git2::{Oid, Repository};

use super::SourceError;
use crate::config::Signers;
use crate::ids::CommitId;

const PROGRAM: &str = "ssh-keygen";
/// As git names what it signs.
const NAMESPACE: &str = "git";
const SSH: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
const DEADLINE: Duration = Duration::from_secs(10);

/// Who signed the commit; an error says why nobody whose key counts has. `folder` is for files that are
/// needed meanwhile. Blocks.
pub(super) fn check(
    git: &Repository,
    id: &CommitId,
    signers: &Signers,
    folder: &Path,
) -> Result<String, SourceError> {
    let unsigned = |why: String| SourceError::Unsigned {
        id: id.clone(),
        why,
    };
    let oid = Oid::from_str(id.as_str()).map_err(|error| unsigned(error.to_string()))?;
    let Ok((signature, content)) = git.extract_signature(&oid, None) else {
        return Err(unsigned("it has no signature".into()));
    };
    if !signature.starts_with(SSH) {
        let why = "its signature is none of SSH (`git config gpg.format ssh`)";
        return Err(unsigned(why.into()));
    }
    let wrong = |error: io::Error| unsigned(format!("it cannot be verified: {error}"));
    let files = Files::write(folder, id, &signature, signers).map_err(wrong)?;
    let principals = run(["-Y", "find-principals"], &files, &[], &[]);
    let principals = principals.map_err(wrong)?;
    let text = String::from_utf8_lossy(&principals.stdout).into_owned();
    let Some(principal) = text.lines().next().filter(|_| principals.status.success()) else {
        return Err(unsigned(
            "the key that signed it is none of those required".into(),
        ));
    };
    let verified = run(
        ["-Y", "verify"],
        &files,
        &["-n", NAMESPACE, "-I", principal],
        &content,
    );
    match verified.map_err(wrong)?.status.success() {
        true => Ok(principal.to_owned()),
        false => Err(unsigned("its signature is not valid".into())),
    }
}

/// The signature and, if deploy.toml lists the keys itself, those; removed when dropped.
struct Files {
    signature: PathBuf,
    signers: PathBuf,
    listed: bool,
}

impl Files {
    fn write(folder: &Path, id: &CommitId, signature: &[u8], from: &Signers) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let path = folder.join(format!("{}.sig", id.short()));
        write(&path, signature)?;
        let signers = match from {
            Signers::File(path) => path.clone(),
            Signers::Keys(keys) => {
                let path = folder.join(format!("{}.signers", id.short()));
                write(&path, lines(keys).as_bytes())?;
                path
            }
        };
        Ok(Self {
            signature: path,
            signers,
            listed: matches!(from, Signers::Keys(_)),
        })
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.signature);
        if self.listed {
            let _ = fs::remove_file(&self.signers);
        }
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    file?.write_all(bytes)
}

/// As ssh-keygen(1) describes ALLOWED SIGNERS; a key's comment is its owner.
fn lines(keys: &[String]) -> String {
    let mut text = String::new();
    for (number, key) in keys.iter().enumerate() {
        let mut words = key.split_whitespace();
        let (kind, data) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let good = |c: char| c.is_ascii_alphanumeric() || "@._-".contains(c);
        let owner = words.next().filter(|owner| owner.chars().all(good));
        let owner = owner.map_or_else(|| format!("key-{}", number + 1), str::to_owned);
        text.push_str(&format!(
            "{owner} namespaces=\"{NAMESPACE}\" {kind} {data}\n"
        ));
    }
    text
}

fn run(what: [&str; 2], files: &Files, more: &[&str], input: &[u8]) -> io::Result<Output> {
    let mut command = Command::new(PROGRAM);
    command.args(what).arg("-f").arg(&files.signers);
    command.arg("-s").arg(&files.signature).args(more);
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(
            "the program `ssh-keygen` is not installed (`apt-get install openssh-client`)",
        ),
        _ => error,
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        match stdin.write_all(input) {
            // It has seen enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let end = Instant::now() + DEADLINE;
    while child.try_wait()?.is_none() {
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::other("`ssh-keygen` does not end"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output()
}
