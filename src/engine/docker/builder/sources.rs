//! Sends files to the builder: first the list of all, then the content of those that it has not got yet
//! (fsutil's protocol, whose packets are STAT, REQ, DATA and FIN).

use std::io::{self, Write};
use std::sync::Arc;

use bollard::fsutil::types::packet::PacketType;
use bollard::fsutil::types::{Packet, Stat};
use bollard::moby::filesync::packet::file_sync_server::FileSync;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::files::{FileEntry, FileKind, Files};

/// Of one packet of content, in bytes.
const CHUNK: usize = 128 << 10;
/// Packets that may wait for the builder.
const PACKETS: usize = 16;
// The file modes of Go.
const FOLDER: u32 = 1 << 31;
const LINK: u32 = 1 << 27;

/// The folders by the names that BuildKit's Dockerfile frontend gives them.
pub(super) struct Sources {
    pub(super) context: Arc<Mutex<dyn Files>>,
    pub(super) dockerfile: Arc<Mutex<dyn Files>>,
}

type Sent = Result<Packet, Status>;

#[tonic::async_trait]
impl FileSync for Sources {
    type DiffCopyStream = BoxStream<'static, Sent>;
    type TarStreamStream = BoxStream<'static, Sent>;

    async fn diff_copy(
        &self,
        request: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        let name = request.metadata().get("dir-name");
        let files = match name.map(|name| name.as_bytes()) {
            Some(b"context") => self.context.clone(),
            Some(b"dockerfile") => self.dockerfile.clone(),
            _ => return Err(Status::not_found("no such folder")),
        };
        let paths = paths(request.metadata());
        let (packets, receiver) = mpsc::channel(PACKETS);
        tokio::spawn(send(files, paths, request.into_inner(), packets));
        let answer = stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|packet| (packet, receiver))
        });
        Ok(Response::new(answer.boxed()))
    }

    async fn tar_stream(
        &self,
        _: Request<Streaming<Packet>>,
    ) -> Result<Response<Self::TarStreamStream>, Status> {
        Err(Status::unimplemented("TarStream"))
    }
}

/// Sends the list, then what the builder asks for, until it is content or gone.
async fn send(
    files: Arc<Mutex<dyn Files>>,
    paths: Option<Vec<Vec<u8>>>,
    mut asked: Streaming<Packet>,
    packets: mpsc::Sender<Sent>,
) {
    let entries = files.lock().entries();
    let places = listed(&entries, paths.as_deref());
    let count = places.len();
    // It asks before the list is complete, and for each file once at most.
    let (ids, wanted) = mpsc::channel(count.max(1));
    let sending = tokio::task::spawn_blocking({
        let packets = packets.clone();
        move || answer(&files, &entries, &places, wanted, &packets)
    });
    while let Some(Ok(packet)) = asked.next().await {
        match packet.r#type() {
            PacketType::PacketReq if (packet.id as usize) < count => {
                if ids.try_send(packet.id as usize).is_err() {
                    break;
                }
            }
            _ => break,
        }
    }
    drop(ids);
    let _ = sending.await;
}

/// Returns once nothing is wanted any more.
fn answer(
    files: &Mutex<dyn Files>,
    entries: &[FileEntry],
    places: &[usize],
    mut wanted: mpsc::Receiver<usize>,
    packets: &mpsc::Sender<Sent>,
) {
    let send = |packet| packets.blocking_send(Ok(packet)).is_ok();
    for place in places {
        if !send(of_stat(Some(stat(&entries[*place])))) {
            return;
        }
    }
    if !send(of_stat(None)) {
        return;
    }
    while let Some(id) = wanted.blocking_recv() {
        let mut content = Content {
            id: id as u32,
            packets,
        };
        if let Err(error) = files.lock().content(places[id], &mut content) {
            let _ = packets.blocking_send(Err(Status::internal(error.to_string())));
            return;
        }
        if !send(of_content(id as u32, Vec::new())) {
            return;
        }
    }
    send(packet(PacketType::PacketFin));
}

struct Content<'a> {
    id: u32,
    packets: &'a mpsc::Sender<Sent>,
}

impl Write for Content<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty packet would end the file.
        for chunk in bytes.chunks(CHUNK) {
            let packet = of_content(self.id, chunk.to_vec());
            (self.packets.blocking_send(Ok(packet))).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn packet(kind: PacketType) -> Packet {
    Packet {
        r#type: kind.into(),
        ..Packet::default()
    }
}

/// `None` ends the list.
fn of_stat(stat: Option<Stat>) -> Packet {
    Packet {
        stat,
        ..packet(PacketType::PacketStat)
    }
}

fn of_content(id: u32, data: Vec<u8>) -> Packet {
    Packet {
        id,
        data,
        ..packet(PacketType::PacketData)
    }
}

fn stat(entry: &FileEntry) -> Stat {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (mode, size, linkname) = match &entry.kind {
        FileKind::Folder => (FOLDER | 0o755, 0, String::new()),
        FileKind::Link(target) => (LINK | 0o777, 0, text(target)),
        FileKind::File { size, executable } => {
            let mode = if *executable { 0o755 } else { 0o644 };
            (mode, *size as i64, String::new())
        }
    };
    Stat {
        path: text(&entry.path),
        mode,
        size,
        linkname,
        mod_time: entry.time,
        ..Stat::default()
    }
}

/// The paths that the builder is interested in; `None` for all. More may be sent than it asks for: that
/// costs time, and changes no image.
fn paths(metadata: &MetadataMap) -> Option<Vec<Vec<u8>>> {
    let all = |key: &str| -> Vec<Vec<u8>> {
        let values = metadata.get_all(key).iter();
        values.map(|value| value.as_bytes().to_vec()).collect()
    };
    if metadata.contains_key("followpaths-encoded")
        || metadata.contains_key("include-patterns-encoded")
    {
        return None;
    }
    let followed = all("followpaths");
    let named = match followed.is_empty() {
        true => all("include-patterns"),
        false => followed,
    };
    let is_plain = |path: &Vec<u8>| !path.iter().any(|byte| b"*?[\\!".contains(byte));
    let is_plain = !named.is_empty() && named.iter().all(is_plain);
    is_plain.then(|| named.iter().map(|path| clean(path)).collect())
}

/// `./a//b/` becomes `a/b`.
fn clean(path: &[u8]) -> Vec<u8> {
    let parts = path.split(|byte| *byte == b'/');
    let parts: Vec<_> = parts.filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

/// The places of the entries that are sent, in the protocol's order: a folder, what is in it, and what
/// comes after it.
fn listed(entries: &[FileEntry], paths: Option<&[Vec<u8>]>) -> Vec<usize> {
    let has_links = entries
        .iter()
        .any(|entry| matches!(entry.kind, FileKind::Link(_)));
    let is_wanted = |path: &[u8]| match paths {
        // What a link leads to is wanted too.
        Some(paths) if !has_links => paths.iter().any(|named| meet(named, path)),
        _ => true,
    };
    let mut places: Vec<usize> = (0..entries.len())
        .filter(|place| is_wanted(&entries[*place].path))
        .collect();
    // Names contain no zero bytes.
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    places.sort_by(|a, b| {
        let [a, b] = [a, b].map(|place| entries[*place].path.iter().map(key));
        a.cmp(b)
    });
    places
}

/// Whether one path is the other, or is in it. An empty one is everything.
fn meet(a: &[u8], b: &[u8]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    long.starts_with(short)
        && (short.is_empty() || long.len() == short.len() || long[short.len()] == b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(paths: &[&str]) -> Vec<FileEntry> {
        let entry = |path: &&str| FileEntry {
            path: path.trim_end_matches('/').into(),
            time: 0,
            kind: match path.ends_with('/') {
                true => FileKind::Folder,
                false => FileKind::File {
                    size: 0,
                    executable: false,
                },
            },
        };
        paths.iter().map(entry).collect()
    }

    fn sent(all: &[&str], wanted: Option<&[&str]>) -> Vec<String> {
        let entries = entries(all);
        let wanted: Option<Vec<_>> =
            wanted.map(|paths| paths.iter().map(|path| clean(path.as_bytes())).collect());
        let places = listed(&entries, wanted.as_deref()).into_iter();
        let path = |place: usize| String::from_utf8_lossy(&entries[place].path).into_owned();
        places.map(path).collect()
    }

    #[test]
    fn a_folder_comes_before_what_is_in_it_and_that_before_its_neighbours() {
        // As git sorts them.
        let all = ["a-b", "a.c", "a/", "a/z", "a0", "b"];
        let expected = ["a", "a/z", "a-b", "a.c", "a0", "b"];
        assert_eq!(sent(&all, None), expected);
    }

    #[test]
    fn only_what_is_asked_for_is_sent_with_the_folders_above_it() {
        let all = ["a/", "a/b/", "a/b/c", "a/bc", "d"];
        for (wanted, expected) in [
            (&["a/b"][..], &["a", "a/b", "a/b/c"][..]),
            (&["/a/b/c", "./d/"], &["a", "a/b", "a/b/c", "d"]),
            (&["."], &["a", "a/b", "a/b/c", "a/bc", "d"]),
            (&["gone"], &[]),
        ] {
            assert_eq!(sent(&all, Some(wanted)), expected, "{wanted:?}");
        }
    }
}
