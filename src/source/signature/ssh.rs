//! `gpg.format = ssh` of git, verified by OpenSSH's `ssh-keygen`.

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use super::{INVALID, Kept, UNKNOWN, Verified, run};
use crate::config::Signers;

const PROGRAM: &str = "ssh-keygen";
/// As git names what it signs.
const NAMESPACE: &str = "git";

pub(super) fn verified(signature: &Kept, content: &Kept, from: &Signers) -> Verified {
    let listed;
    let signers = match from {
        Signers::File(path) => path,
        Signers::Keys { ssh, .. } => {
            listed = signature.beside("signers", lines(ssh).as_bytes())?;
            &listed.0
        }
    };
    let principals = keygen("find-principals", signers, signature, &[], None)?;
    let text = String::from_utf8_lossy(&principals.stdout).into_owned();
    let Some(principal) = text.lines().next().filter(|_| principals.status.success()) else {
        return Ok(Err(UNKNOWN));
    };
    let more = ["-n", NAMESPACE, "-I", principal];
    let done = keygen("verify", signers, signature, &more, Some(content))?;
    Ok(match done.status.success() {
        true => Ok(principal.to_owned()),
        false => Err(INVALID),
    })
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

fn keygen(
    what: &str,
    signers: &Path,
    signature: &Kept,
    more: &[&str],
    input: Option<&Kept>,
) -> io::Result<Output> {
    let mut command = Command::new(PROGRAM);
    command.args(["-Y", what]).arg("-f").arg(signers);
    command.arg("-s").arg(&signature.0).args(more);
    run(PROGRAM, "openssh-client", &mut command, input)
}
