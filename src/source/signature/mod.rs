//! Whether a commit is signed by one of the keys that deploy.toml requires, as `git commit -S` signs it. Nothing of
//! the repository's own configuration is used.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use git2::{Oid, Repository};
use parking_lot::Mutex;

use super::SourceError;
use crate::config::Signers;
use crate::ids::CommitId;

mod openpgp;
mod ssh;

const SSH: &[u8] = b"-----BEGIN SSH SIGNATURE-----";
const OPENPGP: &[u8] = b"-----BEGIN PGP SIGNATURE-----";
const DEADLINE: Duration = Duration::from_secs(10);
static TURN: Mutex<()> = Mutex::new(());

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
    // The files are named after the commit, which may be looked at twice at a time.
    let _turn = TURN.lock();
    let make = || {
        fs::create_dir_all(folder)?;
        let kept = Kept::write(folder.join(format!("{}.sig", id.short())), &signature)?;
        let content = kept.beside("commit", &content)?;
        Ok((kept, content))
    };
    let wrong = |error: io::Error| unsigned(format!("it cannot be verified: {error}"));
    let (kept, content) = make().map_err(wrong)?;
    let verified = match signers {
        _ if signature.starts_with(SSH) => ssh::verified(&kept, &content, signers),
        Signers::Keys { gpg, .. } if signature.starts_with(OPENPGP) => {
            openpgp::verified(&kept, &content, gpg)
        }
        _ => Ok(Err(
            "it is signed with neither SSH nor OpenPGP, or no key of that kind is among those required",
        )),
    };
    verified.map_err(wrong)?.map_err(|why| unsigned(why.into()))
}

/// Who signed it, or why that does not count.
type Verified = io::Result<Result<String, &'static str>>;

const UNKNOWN: &str = "the key that signed it is none of those required";
const INVALID: &str = "its signature is not valid";

/// A file that is removed when this is dropped.
struct Kept(PathBuf);

impl Kept {
    fn write(path: PathBuf, bytes: &[u8]) -> io::Result<Self> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let kept = Self(path);
        file?.write_all(bytes)?;
        Ok(kept)
    }

    /// Another one beside it.
    fn beside(&self, extension: &str, bytes: &[u8]) -> io::Result<Self> {
        Self::write(self.0.with_extension(extension), bytes)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs a program, of a package, with nothing of the agent's environment.
fn run(
    program: &str,
    package: &str,
    command: &mut Command,
    input: Option<&Kept>,
) -> io::Result<Output> {
    command.env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // A pipe would have to be filled while the program is waited for.
    let stdin = match input {
        Some(kept) => File::open(&kept.0)?.into(),
        None => Stdio::null(),
    };
    let child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::other(format!(
            "the program `{program}` is not installed (`apt-get install {package}`)"
        )),
        _ => error,
    })?;
    ended(program, child, DEADLINE)
}

/// What it has said once it ends. One that does not end within this time is killed.
fn ended(program: &str, mut child: Child, within: Duration) -> io::Result<Output> {
    match ends(&mut child, within) {
        Ok(true) => child.wait_with_output(),
        other => {
            child.kill()?;
            child.wait()?;
            other?;
            Err(io::Error::other(format!("`{program}` does not end")))
        }
    }
}

fn ends(child: &mut Child, within: Duration) -> io::Result<bool> {
    let until = Instant::now() + within;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_stalls_is_ended() {
        let mut sleep = Command::new("sleep");
        let child = sleep.arg("1000").stdout(Stdio::piped()).spawn().unwrap();
        let place = format!("/proc/{}", child.id());
        let error = ended("gpgv", child, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.to_string(), "`gpgv` does not end");
        assert!(!Path::new(&place).exists(), "it is gone");
    }
}
