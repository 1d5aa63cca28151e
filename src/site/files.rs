//! The site's files: which one a path names, and what identifies its content.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use crate::request::Request;

/// A larger file is identified by its time and size, as reading it would take long.
const LARGE: u64 = 32 << 20;

pub struct Site {
    root: PathBuf,
    fallback: Option<String>,
    immutable: Vec<String>,
    /// What identifies a file's content, for those that were asked for: nothing changes in an image.
    marks: Mutex<HashMap<PathBuf, String>>,
}

pub enum Found {
    File(PathBuf),
    /// It is a folder, whose path ends with `/`.
    Folder,
    Nothing,
}

/// An opened file.
pub struct Content {
    pub file: File,
    pub size: u64,
    /// In seconds since 1970.
    pub time: u64,
    pub mark: String,
    /// `br` or `gzip`.
    pub coding: Option<&'static str>,
    /// Whether another client may get another coding.
    pub varies: bool,
}

impl Site {
    pub fn new(root: PathBuf, fallback: Option<String>, immutable: Vec<String>) -> Self {
        Self {
            root,
            fallback,
            immutable,
            marks: Mutex::default(),
        }
    }

    pub fn find(&self, parts: &[OsString]) -> Found {
        let (last, folders) = parts
            .split_last()
            .map_or((OsStr::new(""), parts), |(last, rest)| (last, rest));
        let folder = folders
            .iter()
            .fold(self.root.clone(), |path, part| path.join(part));
        if last.is_empty() {
            return self
                .file(&folder.join("index.html"))
                .map_or(Found::Nothing, Found::File);
        }
        if let Some(file) = self.file(&folder.join(last)) {
            return Found::File(file);
        }
        // `/about` for `about.html`.
        let mut page = last.to_owned();
        page.push(".html");
        if let Some(file) = self.file(&folder.join(page)) {
            return Found::File(file);
        }
        match self.file(&folder.join(last).join("index.html")) {
            Some(_) => Found::Folder,
            None => Found::Nothing,
        }
    }

    /// What a client gets in place of a page that does not exist, if it is after a page.
    pub fn fallback(&self, request: &Request, parts: &[OsString]) -> Option<PathBuf> {
        let fallback = self.fallback.as_ref()?;
        let is_file = parts
            .last()
            .is_some_and(|part| part.as_encoded_bytes().contains(&b'.'));
        let wants_page = request.accept.contains("text/html");
        (!is_file || wants_page).then(|| self.file(&self.root.join(fallback)))?
    }

    pub fn not_found(&self) -> Option<PathBuf> {
        self.file(&self.root.join("404.html"))
    }

    /// Links are followed within the site only.
    fn file(&self, path: &Path) -> Option<PathBuf> {
        let real = path.canonicalize().ok()?;
        let within = real.strip_prefix(&self.root).ok()?;
        let hidden = |part: &std::ffi::OsStr| part.as_encoded_bytes().starts_with(b".");
        let mut parts = within.iter().enumerate();
        let is_hidden = parts.any(|(at, part)| hidden(part) && !(at == 0 && part == ".well-known"));
        (!is_hidden && real.is_file()).then_some(real)
    }

    /// Whether the content never changes under this path.
    pub fn is_immutable(&self, path: &Path) -> bool {
        let below = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
        below.is_some_and(|path| self.immutable.iter().any(|it| matches(it, path)))
    }

    /// Opens the file, or what was compressed from it beforehand.
    pub fn open(&self, path: &Path, request: &Request) -> io::Result<Content> {
        let mut varies = false;
        let mut chosen = (path.to_owned(), None);
        let mut best = 0.0;
        // The better one last: it wins where the client likes both alike.
        for (end, coding) in [("gz", "gzip"), ("br", "br")] {
            let mut name = path.as_os_str().to_owned();
            name.push(format!(".{end}"));
            if let Some(file) = self.file(Path::new(&name)) {
                varies = true;
                let weight = request.weight(coding);
                if weight > 0.0 && weight >= best {
                    best = weight;
                    chosen = (file, Some(coding));
                }
            }
        }
        let (path, coding) = chosen;
        let file = File::open(&path)?;
        let about = file.metadata()?;
        let time = about.modified().ok();
        let time = time.and_then(|it| it.duration_since(UNIX_EPOCH).ok());
        let time = time.map_or(0, |it| it.as_secs());
        Ok(Content {
            mark: self.mark(&path, about.len(), time)?,
            file,
            size: about.len(),
            time,
            coding,
            varies,
        })
    }

    fn mark(&self, path: &Path, size: u64, time: u64) -> io::Result<String> {
        if let Some(mark) = self.marks.lock().ok().and_then(|it| it.get(path).cloned()) {
            return Ok(mark);
        }
        let mark = match size {
            // Without a time it is all that tells one content from another.
            LARGE.. if time > 0 => format!("\"{size:x}-{time:x}\""),
            _ => format!("\"{:016x}\"", hash(path)?),
        };
        if let Ok(mut marks) = self.marks.lock() {
            marks.insert(path.to_owned(), mark.clone());
        }
        Ok(mark)
    }
}

/// FNV-1a.
fn hash(path: &Path) -> io::Result<u64> {
    let mut file = fs::File::open(path)?;
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = file.read(&mut buffer)?;
        if length == 0 {
            return Ok(hash);
        }
        for byte in &buffer[..length] {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// Whether a path fits a pattern, in which `*` stands for anything.
fn matches(pattern: &str, path: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = path.strip_prefix(first) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}
