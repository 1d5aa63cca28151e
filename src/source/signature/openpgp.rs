//! `gpg.format = openpgp` of git, its default, verified by GnuPG's `gpgv` with no keys but those required.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{INVALID, Kept, UNKNOWN, Verified, run};

const PROGRAM: &str = "gpgv";
const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";
/// Of a file of keys, in bytes.
const LARGEST: u64 = 4 << 20;

pub(super) fn verified(signature: &Kept, content: &Kept, files: &[PathBuf]) -> Verified {
    let mut all = Vec::new();
    for path in files {
        all.extend(keys(path)?);
    }
    if all.is_empty() {
        return Ok(Err(UNKNOWN));
    }
    let ring = signature.beside("keys", &all)?;
    // A name without a slash would be looked for in its home.
    let ring = fs::canonicalize(&ring.0)?;
    let home = ring.parent().unwrap_or(Path::new("/"));
    let mut command = Command::new(PROGRAM);
    command.args(["--quiet", "--status-fd", "1"]);
    command.arg("--homedir").arg(home);
    command.arg("--keyring").arg(&ring);
    command.arg("--").arg(&signature.0).arg("-");
    let done = run(PROGRAM, "gpgv", &mut command, Some(content))?;
    Ok(read(
        &String::from_utf8_lossy(&done.stdout),
        done.status.success(),
    ))
}

/// Who signed, by what `gpgv` says: exactly one signature, by a key that has neither expired nor been revoked,
/// which its exit status does not tell.
fn read(said: &str, good: bool) -> Result<String, &'static str> {
    let all = |name: &str| {
        let of = |line: &str| {
            let (word, rest) = line.strip_prefix("[GNUPG:] ")?.split_once(' ')?;
            (word == name).then(|| rest.to_owned())
        };
        said.lines().filter_map(of).collect::<Vec<_>>()
    };
    if !all("NO_PUBKEY").is_empty() {
        return Err(UNKNOWN);
    }
    if !all("EXPKEYSIG").is_empty() || !all("EXPSIG").is_empty() {
        return Err("the key that signed it, or its signature, has expired");
    }
    if !all("REVKEYSIG").is_empty() {
        return Err("the key that signed it is revoked");
    }
    match (
        &all("GOODSIG")[..],
        all("VALIDSIG").len(),
        all("NEWSIG").len(),
    ) {
        ([one], 1, 0 | 1) if good => {
            let owner = one.split_once(' ').map_or(one.as_str(), |(_, owner)| owner);
            Ok(owner.to_owned())
        }
        _ => Err(INVALID),
    }
}

/// What `gpg --export` writes, with or without `--armor`.
fn keys(path: &Path) -> io::Result<Vec<u8>> {
    let shown = path.display();
    let wrong = |why: &dyn std::fmt::Display| io::Error::other(format!("`{shown}`: {why}"));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| wrong(&error))?;
    if bytes.len() as u64 > LARGEST {
        return Err(wrong(&"it is larger than 4 MiB"));
    }
    // The first byte of a packet has the highest bit.
    if bytes.first().is_some_and(|first| *first >= 0x80) {
        return Ok(bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let blocks = text.split(BEGIN).skip(1).map(dearmored);
    let blocks: Option<Vec<_>> = blocks.collect();
    match blocks {
        Some(blocks) if !blocks.is_empty() => Ok(blocks.concat()),
        _ => Err(wrong(
            &"it is not a file of OpenPGP public keys (`gpg --export --armor`)",
        )),
    }
}

/// What follows the first line of a block: headers, an empty line, the content in Base64, its checksum, the end.
fn dearmored(block: &str) -> Option<Vec<u8>> {
    let (block, _) = block.split_once(END)?;
    let lines = block.lines().map(str::trim).skip(1);
    let content = lines
        .skip_while(|line| line.contains(": "))
        .filter(|line| !line.starts_with('='));
    STANDARD.decode(content.collect::<String>()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_good_signature_of_a_key_in_force_counts() {
        let good = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 0A Ann <ann@example.com>\n[GNUPG:] VALIDSIG 0B 2026\n";
        assert_eq!(read(good, true).as_deref(), Ok("Ann <ann@example.com>"));
        assert_eq!(read(good, false), Err(INVALID));
        assert_eq!(read(&good.repeat(2), true), Err(INVALID));
        assert_eq!(read("", true), Err(INVALID));
        assert_eq!(read("[GNUPG:] NO_PUBKEY 0A\n", false), Err(UNKNOWN));
        for kind in ["EXPKEYSIG", "REVKEYSIG", "EXPSIG"] {
            assert!(
                read(&good.replace("GOODSIG", kind), true).is_err(),
                "{kind}"
            );
            assert!(read(&format!("{good}[GNUPG:] {kind} 0A Ann\n"), true).is_err());
        }
    }
}
