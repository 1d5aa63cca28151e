//! Reads a large file in pieces: libgit2 loads it into memory as a whole for most kinds of storage.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::bufread::ZlibDecoder;
use git2::{Oid, Repository};
use sha1::{Digest, Sha1};

/// How many object folders (git's alternates) one repository may borrow from.
const BORROWED: usize = 16;

/// The content of a file of `size` bytes, read from where git stores it. `None` if it is stored as a
/// delta, which git does not do with files over 512 MiB. Any error of the reader means that the object
/// is damaged: its hash is compared at the end.
pub(crate) fn open(git: &Repository, id: Oid, size: u64) -> Option<impl Read + use<>> {
    let folders = folders(&git.commondir().join("objects"));
    let content =
        (folders.iter()).find_map(|folder| loose(folder, id).or_else(|| packed(folder, id)))?;
    let mut hash = Sha1::new();
    hash.update(format!("blob {size}\0"));
    Some(Checked {
        content,
        hash: Some(hash),
        id,
        left: size,
    })
}

/// The repository's own object folder and those that it borrows from.
fn folders(own: &Path) -> Vec<PathBuf> {
    let mut all = vec![own.to_owned()];
    let mut next = 0;
    while let Some(folder) = all.get(next).cloned() {
        next += 1;
        let list = fs::read_to_string(folder.join("info/alternates")).unwrap_or_default();
        let named = list
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let room = BORROWED.saturating_sub(all.len());
        all.extend(named.take(room).map(|path| folder.join(path)));
    }
    all
}

type Content = ZlibDecoder<BufReader<File>>;

fn loose(folder: &Path, id: Oid) -> Option<Content> {
    let name = id.to_string();
    let file = File::open(folder.join(&name[..2]).join(&name[2..])).ok()?;
    let mut content = ZlibDecoder::new(BufReader::with_capacity(64 << 10, file));
    // `blob 1234` and a zero byte precede the content.
    let mut head = Vec::new();
    let mut byte = [0];
    while head.len() < 32 && content.read_exact(&mut byte).is_ok() && byte != [0] {
        head.push(byte[0]);
    }
    head.starts_with(b"blob ").then_some(content)
}

fn packed(folder: &Path, id: Oid) -> Option<Content> {
    let indexes = fs::read_dir(folder.join("pack")).ok()?;
    let indexes = indexes.flatten().map(|entry| entry.path());
    let mut indexes = indexes.filter(|path| path.extension().is_some_and(|e| e == "idx"));
    indexes.find_map(|index| {
        let offset = offset(&File::open(&index).ok()?, id).ok()??;
        whole(File::open(index.with_extension("pack")).ok()?, offset)
    })
}

/// The object's offset in the pack, from git's index of it (gitformat-pack, version 2).
fn offset(index: &File, id: Oid) -> io::Result<Option<u64>> {
    const FANOUT: u64 = 8;
    const NAMES: u64 = FANOUT + 256 * 4;
    const MAGIC: u32 = 0xff74_4f63;
    let number = |at: u64| {
        let mut bytes = [0; 4];
        index.read_exact_at(&mut bytes, at)?;
        io::Result::Ok(u32::from_be_bytes(bytes))
    };
    if number(0)? != MAGIC || number(4)? != 2 {
        return Ok(None);
    }
    let first = u64::from(id.as_bytes()[0]);
    let count = u64::from(number(FANOUT + 255 * 4)?);
    let mut low = match first {
        0 => 0,
        first => u64::from(number(FANOUT + (first - 1) * 4)?),
    };
    let mut high = u64::from(number(FANOUT + first * 4)?);
    while low < high {
        let middle = (low + high) / 2;
        let mut name = [0; 20];
        index.read_exact_at(&mut name, NAMES + middle * 20)?;
        match name.as_slice().cmp(id.as_bytes()) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => {
                let offsets = NAMES + count * 24;
                let offset = number(offsets + middle * 4)?;
                // Offsets from 2 GiB on are in a second table.
                return Ok(Some(match offset & 0x8000_0000 {
                    0 => u64::from(offset),
                    _ => {
                        let mut bytes = [0; 8];
                        let place = u64::from(offset & 0x7fff_ffff);
                        index.read_exact_at(&mut bytes, offsets + count * 4 + place * 8)?;
                        u64::from_be_bytes(bytes)
                    }
                }));
            }
        }
    }
    Ok(None)
}

/// The content at `offset` of a pack, if it is stored whole and not as a delta.
fn whole(mut pack: File, offset: u64) -> Option<Content> {
    const BLOB: u8 = 3;
    const MORE: u8 = 0x80;
    pack.seek(SeekFrom::Start(offset)).ok()?;
    let mut pack = BufReader::with_capacity(64 << 10, pack);
    let mut byte = [0];
    pack.read_exact(&mut byte).ok()?;
    if byte[0] >> 4 & 7 != BLOB {
        return None;
    }
    while byte[0] & MORE != 0 {
        pack.read_exact(&mut byte).ok()?;
    }
    Some(ZlibDecoder::new(pack))
}

struct Checked<R> {
    content: R,
    hash: Option<Sha1>,
    id: Oid,
    left: u64,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        let most = into
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.content.read(&mut into[..most]);
        let read = read.map_err(|error| damaged(error.to_string()))?;
        self.left -= read as u64;
        if let Some(hash) = &mut self.hash {
            hash.update(&into[..read]);
        }
        if read == 0 && most > 0 {
            return Err(damaged(format!("`{}` is truncated", self.id)));
        }
        // Checked before the last piece is returned, so that a damaged file is never taken for a
        // whole one.
        if self.left == 0
            && let Some(hash) = self.hash.take()
            && hash.finalize().as_slice() != self.id.as_bytes()
        {
            return Err(damaged(format!(
                "the content of `{}` does not match its id",
                self.id
            )));
        }
        Ok(read)
    }
}
