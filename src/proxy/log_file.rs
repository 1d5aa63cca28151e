//! Log files of a bounded size: a full file is renamed to `….1`, and earlier ones up to `….5`.

use std::fs::{File, OpenOptions, rename};
use std::io;
use std::path::{Path, PathBuf};

/// The log of a proxy that was started by an agent.
pub const OWN: &str = "proxy.log";
const LARGEST: u64 = 16 << 20;
const KEPT: u32 = 5;

pub fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Renames the full file and begins a new one.
pub fn set_aside(path: &Path) -> io::Result<File> {
    let numbered = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for n in (1..KEPT).rev() {
        let _ = rename(numbered(n), numbered(n + 1));
    }
    rename(path, numbered(1))?;
    open(path)
}

/// Sets the proxy's own log aside once it is full, since the proxy outlives the agent that created it.
/// Blocks.
pub fn bound_own(folder: &Path) -> io::Result<()> {
    let path = folder.join(OWN);
    let own = rustix::fs::fstat(rustix::stdio::stderr())?;
    let Ok(named) = rustix::fs::stat(&path) else {
        return Ok(());
    };
    let is_named = (own.st_dev, own.st_ino) == (named.st_dev, named.st_ino);
    if !is_named || (own.st_size as u64) < LARGEST {
        return Ok(());
    }
    let fresh = set_aside(&path)?;
    rustix::stdio::dup2_stdout(&fresh)?;
    rustix::stdio::dup2_stderr(&fresh)?;
    Ok(())
}
