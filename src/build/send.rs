//! Sends a context: file by file as the builder asks for them, or as a tar.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use git2::{ObjectType, Oid};
use tar::{EntryType, Header};

use super::convert::converted;
use super::walk::{Kind, Place};
use super::{BuildError, Context, dockerfile};
use crate::engine::EngineError;
use crate::engine::files::{FileEntry, FileKind, Files};

impl Context {
    /// How many files, folders and links it has.
    pub fn entries(&self) -> usize {
        self.list.entries.len()
    }

    /// The total size of the files, in bytes.
    pub fn size(&self) -> u64 {
        self.list.size
    }

    /// How much it is, for people.
    pub(super) fn extent(&self) -> String {
        let kib = self.size().div_ceil(1024);
        match self.entries() {
            1 => format!("1 file, {kib} KiB"),
            many => format!("{many} files and folders, {kib} KiB"),
        }
    }

    /// The Dockerfile, in a folder of its own: whether the image gets it is up to .dockerignore.
    pub(super) fn dockerfile_folder(&self) -> dockerfile::Folder {
        dockerfile::Folder::of(&self.dockerfile, stamp(self.time, self.dockerfile.id))
    }

    /// Writes all of it as a tar. The same commit and settings give the same bytes.
    pub fn send(&self, sink: impl Write) -> Result<(), BuildError> {
        self.tar(None, sink)
    }

    /// `dockerfile`: a name under which the tar has the Dockerfile as well.
    fn tar(&self, dockerfile: Option<&str>, sink: impl Write) -> Result<(), BuildError> {
        let mut tar = tar::Builder::new(sink);
        if let Some(name) = dockerfile {
            let mut header = self.header(EntryType::Regular, 0o644);
            header.set_size(self.dockerfile.text.len() as u64);
            let text = self.dockerfile.text.as_slice();
            tar.append_data(&mut header, name, text).map_err(gone)?;
        }
        for entry in &self.list.entries {
            let path = Path::new(OsStr::from_bytes(&entry.path));
            let sent = match &entry.kind {
                Kind::Folder => {
                    let mut header = self.header(EntryType::Directory, 0o755);
                    tar.append_data(&mut header, path, io::empty())
                }
                Kind::File {
                    id,
                    executable,
                    place,
                    time,
                    ..
                } => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    let mut header = self.header(EntryType::Regular, mode);
                    header.set_mtime(*time);
                    let name = path.to_string_lossy();
                    self.content_of(*id, place, &name, |size, content| {
                        header.set_size(size);
                        tar.append_data(&mut header, path, content)
                    })?
                }
                Kind::Link(target) => {
                    let mut header = self.header(EntryType::Symlink, 0o777);
                    // Written verbatim; the crate normalizes only a long one.
                    match header.set_link_name_literal(target) {
                        Ok(()) => tar.append_data(&mut header, path, io::empty()),
                        Err(_) => tar.append_link(&mut header, path, OsStr::from_bytes(target)),
                    }
                }
            };
            sent.map_err(gone)?;
        }
        (tar.into_inner().and_then(|mut sink| sink.flush())).map_err(gone)
    }

    fn header(&self, kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.time);
        header.set_size(0);
        header
    }

    /// Passes a file's size and content to `take`.
    fn content_of(
        &self,
        id: Oid,
        place: &Place,
        name: &str,
        take: impl FnOnce(u64, &mut dyn Read) -> io::Result<()>,
    ) -> Result<io::Result<()>, BuildError> {
        match place {
            Place::Part(number) => self.parts[*number].objects.content(id, name, take),
            Place::Converted { part, id, how } => {
                let objects = &self.parts[*part].objects;
                let blob = objects.blob(*id, name, u64::MAX)?;
                let made = converted(*id, blob.content(), *how);
                let bytes = made.as_deref().unwrap_or(blob.content());
                Ok(take(bytes.len() as u64, &mut &*bytes))
            }
            Place::Own(bytes) => Ok(take(bytes.len() as u64, &mut &**bytes)),
            Place::Stored(path) => Ok(File::open(path).and_then(|mut file| {
                let size = file.metadata()?.len();
                take(size, &mut file)
            })),
        }
    }

    /// Keeps the error, since all that the builder says is that it was not sent everything.
    fn keep<T>(&mut self, done: Result<T, BuildError>) -> io::Result<T> {
        done.map_err(|error| {
            let said = io::Error::other(error.to_string());
            self.failed.get_or_insert(error);
            said
        })
    }
}

impl Files for Context {
    fn entries(&self) -> Arc<[FileEntry]> {
        let entries = self.list.entries.iter().map(|entry| {
            let (time, kind) = match &entry.kind {
                Kind::Folder => (stamp(self.time, Oid::ZERO_SHA1), FileKind::Folder),
                Kind::Link(target) => (
                    stamp(self.time, Oid::ZERO_SHA1),
                    FileKind::Link(target.clone()),
                ),
                Kind::File {
                    id,
                    size,
                    executable,
                    time,
                    ..
                } => {
                    let (size, executable) = (*size, *executable);
                    (stamp(*time, *id), FileKind::File { size, executable })
                }
            };
            FileEntry {
                path: entry.path.clone(),
                time,
                kind,
            }
        });
        entries.collect()
    }

    fn content(&mut self, place: usize, to: &mut dyn Write) -> io::Result<()> {
        let entry = self.list.entries.get(place);
        let Some((Kind::File { id, place, .. }, path)) = entry.map(|it| (&it.kind, &it.path))
        else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let name = String::from_utf8_lossy(path);
        let sent = self.content_of(*id, place, &name, |_, content| {
            io::copy(content, to).map(drop)
        });
        self.keep(sent)?
    }

    fn dockerfile(&self) -> Option<String> {
        // Not by its id: a line of the text may have been taken out, and what is stored elsewhere is not it.
        let wanted = Oid::hash_object(ObjectType::Blob, &self.dockerfile.text).ok()?;
        let is = |kind: &Kind| match kind {
            Kind::File { id, place, .. } => *id == wanted && matches!(place, Place::Part(_)),
            _ => false,
        };
        let mut entries = self.list.entries.iter();
        let found = entries.find(|entry| is(&entry.kind))?;
        String::from_utf8(found.path.clone()).ok()
    }

    fn tar(&mut self, dockerfile: Option<&str>, to: &mut dyn Write) -> io::Result<()> {
        let sent = Self::tar(self, dockerfile, to);
        self.keep(sent)
    }
}

/// A time in nanoseconds that is different for another content, even of two commits in one second.
fn stamp(seconds: u64, id: Oid) -> i64 {
    let head = id.as_bytes().first_chunk().copied().unwrap_or_default();
    let nanos = i64::from(u32::from_be_bytes(head) % 1_000_000_000);
    (seconds as i64)
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos)
}

fn gone(error: io::Error) -> BuildError {
    let why = format!("the builder stopped reading the context: {error}");
    BuildError::Engine(EngineError::Stopped(why))
}
