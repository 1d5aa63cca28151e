//! The commands of a push, which precede the commits themselves.

use axum::body::Bytes;
use futures_util::{Stream, StreamExt};

use super::packet::{self, Packet};

/// The longest list of commands, in bytes: far more refs than any push moves.
const LONGEST: usize = 1 << 20;

/// The beginning of a push.
#[derive(Debug, Default)]
pub(super) struct Commands {
    pub(super) updates: Vec<Update>,
    /// The options given with `git push -o`.
    pub(super) options: Vec<String>,
    /// Whether the pusher's git can show text and wants a report.
    pub(super) can_report: bool,
    /// Everything that has been read, to be passed on to git.
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Update {
    pub(super) old: String,
    pub(super) new: String,
    pub(super) git_ref: String,
}

impl Commands {
    /// Reads the commands from the beginning of a request's body.
    pub(super) async fn read<E>(
        body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<Self, &'static str> {
        let mut commands = Self::default();
        let mut rest = Vec::new();
        let mut with_options = false;
        while let Some(data) = next(body, &mut rest, &mut commands.bytes).await? {
            let text =
                String::from_utf8(data).map_err(|_| "the name of a ref is not valid UTF-8")?;
            let (line, capabilities) = match text.split_once('\0') {
                Some((line, capabilities)) => (line, capabilities),
                None => (text.as_str(), ""),
            };
            let mut has = capabilities.split_ascii_whitespace();
            with_options |= has.clone().any(|c| c == "push-options");
            commands.can_report |= has.clone().any(|c| c == "side-band-64k")
                && has.any(|c| c.starts_with("report-status"));
            if line.starts_with("shallow ") {
                continue;
            }
            let mut words = line.trim_end_matches('\n').splitn(3, ' ');
            match (words.next(), words.next(), words.next()) {
                (Some(old), Some(new), Some(git_ref)) => commands.updates.push(Update {
                    old: old.to_owned(),
                    new: new.to_owned(),
                    git_ref: git_ref.to_owned(),
                }),
                _ => return Err("invalid command"),
            }
        }
        if with_options {
            while let Some(data) = next(body, &mut rest, &mut commands.bytes).await? {
                let text = String::from_utf8_lossy(&data);
                commands.options.push(text.trim_end().to_owned());
            }
        }
        Ok(commands)
    }

    pub(super) fn has(&self, option: &str) -> bool {
        self.options.iter().any(|given| given == option)
    }
}

/// The next packet's data; `None` at a flush packet.
async fn next<E>(
    body: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    rest: &mut Vec<u8>,
    all: &mut Vec<u8>,
) -> Result<Option<Vec<u8>>, &'static str> {
    loop {
        match packet::take(rest)? {
            Some(Packet::Data(data)) => return Ok(Some(data)),
            Some(Packet::Flush) => return Ok(None),
            None => {}
        }
        // Pieces of the pack itself may be in here; only what still has to be parsed is limited
        // closely.
        if rest.len() > LONGEST || all.len() > 2 * LONGEST {
            return Err("too many commands");
        }
        let chunk = (body.next().await).ok_or("the push ended too early")?;
        let chunk = chunk.map_err(|_| "the connection closed during the push")?;
        rest.extend_from_slice(&chunk);
        all.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    async fn read(bytes: &[u8], piece: usize) -> Result<Commands, &'static str> {
        let pieces = bytes
            .chunks(piece)
            .map(|p| Ok::<_, ()>(Bytes::copy_from_slice(p)));
        Commands::read(&mut stream::iter(pieces.collect::<Vec<_>>())).await
    }

    #[tokio::test]
    async fn commands_and_options_are_read_however_they_are_cut() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let mut push = packet::wrap(
            format!("{a} {b} refs/heads/main\0 report-status side-band-64k push-options\n")
                .as_bytes(),
        );
        push.extend(packet::wrap(format!("{b} {a} refs/tags/v1").as_bytes()));
        push.extend(packet::FLUSH);
        push.extend(packet::wrap(b"cutover.skip\n"));
        push.extend(packet::FLUSH);
        push.extend(b"PACK....");
        for piece in [1, 7, 1000] {
            let read = read(&push, piece).await.unwrap();
            let refs: Vec<_> = read.updates.iter().map(|u| u.git_ref.as_str()).collect();
            assert_eq!(refs, ["refs/heads/main", "refs/tags/v1"]);
            assert_eq!(read.updates[0].new, b);
            assert!(read.has("cutover.skip") && read.can_report);
            assert!(push.starts_with(&read.bytes));
        }
        assert!(read(&push[..30], 30).await.is_err());
        assert!(read(b"0008main0000", 99).await.is_err());
        assert!(read(b"nonsense", 99).await.is_err());
        // What a client sends first to check whether it is authorized.
        assert!(read(b"0000", 4).await.unwrap().updates.is_empty());
    }
}
