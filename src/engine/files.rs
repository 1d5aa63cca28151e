//! The files that a builder asks for one by one.

use std::io::{self, Write};
use std::sync::Arc;

/// A folder of files, none of which is read before the builder wants it. Its methods block.
pub trait Files: Send {
    /// Folders come before what is in them. The place of an entry in this list is its name in
    /// [`Files::content`].
    fn entries(&self) -> Arc<[FileEntry]>;

    /// Writes a file's content.
    fn content(&mut self, place: usize, to: &mut dyn Write) -> io::Result<()>;

    /// The file among them that is, to the last byte, the Dockerfile that is built.
    fn dockerfile(&self) -> Option<String>;

    /// Writes everything as one tar for engines that do not ask for files. `dockerfile`: a name under which it has
    /// the Dockerfile as well.
    fn tar(&mut self, dockerfile: Option<&str>, to: &mut dyn Write) -> io::Result<()>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Relative to the folder. Bytes, because file names need not be UTF-8.
    pub path: Vec<u8>,
    /// In nanoseconds since 1970. A file that has another content than before has another time: the
    /// builder compares nothing else but sizes.
    pub time: i64,
    pub kind: FileKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileKind {
    Folder,
    File { size: u64, executable: bool },
    Link(Vec<u8>),
}
