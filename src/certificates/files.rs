//! The files of `data_dir/acme`. Each is whole or absent, whenever the machine stops.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::proxy::{ACME, Folders};

/// An order does not wait for its challenges for so long.
const OUTDATED: Duration = Duration::from_secs(3600);

/// Where everything is.
#[derive(Clone)]
pub struct Files {
    folder: PathBuf,
    folders: Folders,
}

impl Files {
    /// `own`: the folder of the owner's certificates.
    pub fn new(data_dir: &Path, own: Option<PathBuf>) -> Self {
        let own = own.unwrap_or_else(|| data_dir.join("certs"));
        Self {
            folder: data_dir.join(ACME),
            folders: Folders::new(own, data_dir),
        }
    }

    pub fn own(&self) -> &Path {
        &self.folders.own
    }

    pub fn account(&self, directory: &str) -> PathBuf {
        let of = hex::encode(&Sha256::digest(directory)[..8]);
        self.folder.join(format!("account-{of}.json"))
    }

    pub fn certificate(&self, name: &str) -> PathBuf {
        self.folders
            .ordered
            .join(format!("{}.pem", file_name(name)))
    }

    pub fn ordered(&self) -> &Path {
        &self.folders.ordered
    }

    pub fn pending_key(&self, name: &str) -> PathBuf {
        let pending = self.folder.join("pending");
        pending.join(format!("{}.key", file_name(name)))
    }

    /// The text that answers an HTTP-01 challenge.
    pub fn answer(&self, token: &str) -> PathBuf {
        self.folders.challenges.join(token)
    }

    /// The certificate that answers a TLS-ALPN-01 challenge.
    pub fn proof(&self, name: &str) -> PathBuf {
        self.folders.challenges.join(format!("{name}.pem"))
    }

    /// Removes the answers that were left by agents that were killed. Newer ones stay: an authority may be
    /// about to look for them. Blocks.
    pub fn clear_challenges(&self) {
        let entries = fs::read_dir(&self.folders.challenges);
        for entry in entries.into_iter().flatten().flatten() {
            let written = entry.metadata().and_then(|file| file.modified()).ok();
            let age = written.and_then(|written| written.elapsed().ok());
            if age.is_some_and(|age| age > OUTDATED) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A name has no character that is special in a path but the asterisk of a wildcard.
fn file_name(name: &str) -> String {
    name.replace('*', "_")
}

/// Writes a file that only the agent's user can read. Blocks.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    // With an extension that is not looked at. Each file has one writer.
    let mut temp = path.as_os_str().to_owned();
    temp.push(".new");
    let temp = PathBuf::from(temp);
    let _ = fs::remove_file(&temp);
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temp, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::new(folder.path(), None);
        let path = files.certificate("*.a.test");
        assert!(path.ends_with("acme/certificates/_.a.test.pem"));
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }
}
