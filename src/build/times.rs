//! When each file last changed, as far as builds have seen it. The builder asks again for what has another
//! time; and a web server that derives Last-Modified from it may never see a file go back in time.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use git2::Oid;

use super::walk::{Kind, List};

/// Beyond this many files, all of them have the commit's time.
const MOST: usize = 50_000;
/// The largest record that is read, in bytes.
const LONGEST: u64 = 32 << 20;

/// The files of the build before, by path.
#[derive(Default)]
pub(super) struct Times(HashMap<Vec<u8>, (Oid, u64)>);

impl Times {
    /// Reads the record of a context; without one, all files are new.
    pub(super) fn read(record: &Path) -> Self {
        let is_short = fs::metadata(record).is_ok_and(|it| it.len() <= LONGEST);
        let bytes = match is_short {
            true => fs::read(record).unwrap_or_default(),
            false => Vec::new(),
        };
        let lines = bytes.split(|byte| *byte == 0);
        Self(lines.filter_map(parsed).collect())
    }

    /// Sets the time of each file: that of its content at its path or, if that is new there, `now`, which
    /// is later than before in any case.
    pub(super) fn set(&self, list: &mut List, now: u64) {
        for entry in &mut list.entries {
            let Kind::File { id, time, .. } = &mut entry.kind else {
                continue;
            };
            *time = match self.0.get(&entry.path) {
                Some((known, at)) if known == id => *at,
                Some((_, at)) => now.max(at + 1),
                None => now,
            };
        }
    }

    /// Replaces the record. Without it the builder asks for more than it needs, and that is all.
    pub(super) fn write(record: PathBuf, list: &List) {
        let mut bytes = Vec::new();
        if list.entries.len() <= MOST {
            for entry in &list.entries {
                if let Kind::File { id, time, .. } = &entry.kind {
                    bytes.extend_from_slice(format!("{time} {id} ").as_bytes());
                    bytes.extend_from_slice(&entry.path);
                    bytes.push(0);
                }
            }
        }
        let temp = record.with_extension("new");
        let written = record
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&temp, bytes))
            .and_then(|()| fs::rename(&temp, &record));
        if let Err(error) = written {
            tracing::debug!(%error, record = %record.display(), "the times of files are not kept");
        }
    }
}

/// `TIME ID PATH`.
fn parsed(line: &[u8]) -> Option<(Vec<u8>, (Oid, u64))> {
    let mut fields = line.splitn(3, |byte| *byte == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (time, id) = (text()?.parse().ok()?, Oid::from_str(text()?).ok()?);
    Some((fields.next()?.to_vec(), (id, time)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::walk::{Entry, Place};

    fn list(files: &[(&str, u8)]) -> List {
        let entry = |(path, content): &(&str, u8)| Entry {
            path: path.as_bytes().to_vec(),
            kind: Kind::File {
                id: Oid::from_bytes(&[*content; 20]).unwrap(),
                size: 1,
                executable: false,
                place: Place::Part(0),
                time: 0,
            },
        };
        List {
            entries: files.iter().map(entry).collect(),
            size: 0,
        }
    }

    #[test]
    fn a_file_keeps_its_time_until_it_changes_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let record = folder.path().join("times/x");
        let build = |files: &[(&str, u8)], now| {
            let mut list = list(files);
            Times::read(&record).set(&mut list, now);
            Times::write(record.clone(), &list);
            let times = list.entries.iter().map(|entry| match entry.kind {
                Kind::File { time, .. } => time,
                _ => 0,
            });
            times.collect::<Vec<_>>()
        };
        assert_eq!(build(&[("a b", 1), ("c", 2)], 10), [10, 10]);
        assert_eq!(build(&[("a b", 1), ("c", 3)], 20), [10, 20]);
        // An older commit.
        assert_eq!(build(&[("a b", 4), ("c", 2)], 10), [11, 21]);
        // What has been away is new.
        assert_eq!(build(&[("c", 2)], 30), [21]);
        assert_eq!(build(&[("a b", 1), ("c", 2)], 40), [40, 21]);
        fs::write(&record, "damaged").unwrap();
        assert_eq!(build(&[("c", 2)], 50), [50]);
    }
}
