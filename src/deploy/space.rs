//! The space on a disk.

use std::fmt;
use std::io;
use std::path::Path;

/// With less free space than this, in bytes, the next build may not fit.
const LITTLE: u64 = 2 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// In bytes.
    pub free: u64,
    /// In bytes.
    pub all: u64,
    /// How many more files it has room for, where that is counted.
    pub files: Option<u64>,
}

impl Space {
    /// That of the disk that a folder is on.
    pub fn of(folder: &Path) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            all: disk.f_blocks.saturating_mul(disk.f_frsize),
            files: (disk.f_files > 0).then_some(disk.f_favail),
        })
    }

    pub fn is_little(self) -> bool {
        self.free < LITTLE
    }

    /// Whether there is clearly enough again: between this and little, nothing changes.
    pub fn is_enough(self) -> bool {
        self.free >= LITTLE / 2 * 3
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        write!(f, "{:.1} of {:.1} GiB free", gib(self.free), gib(self.all))
    }
}
