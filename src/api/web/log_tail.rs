//! The end of a deployment's log, as much as a page shows at once.

use std::io::SeekFrom;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// How much a page shows, in bytes; what is written later is added to it.
const SHOWN: u64 = 96 << 10;

/// Whole lines of a log.
#[derive(Default)]
pub struct LogTail {
    pub text: String,
    /// Where the text begins and ends in the log, in bytes.
    pub begin: u64,
    pub end: u64,
}

impl LogTail {
    /// Empty if there is no log, or none any more.
    pub async fn read(path: &Path) -> Self {
        Self::read_last(path, SHOWN).await.unwrap_or_default()
    }

    async fn read_last(path: &Path, shown: u64) -> std::io::Result<Self> {
        let mut file = tokio::fs::File::open(path).await?;
        let length = file.metadata().await?.len();
        let mut begin = length.saturating_sub(shown);
        file.seek(SeekFrom::Start(begin)).await?;
        let mut bytes = Vec::new();
        file.take(shown).read_to_end(&mut bytes).await?;
        if begin > 0 {
            let first = bytes.iter().position(|byte| *byte == b'\n');
            let first = first.map_or(bytes.len(), |first| first + 1);
            begin += first as u64;
            bytes.drain(..first);
        }
        let last = bytes.iter().rposition(|byte| *byte == b'\n');
        bytes.truncate(last.map_or(0, |last| last + 1));
        Ok(Self {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            begin,
            end: begin + bytes.len() as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_whole_lines_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let shown = async |text: &str, most| {
            std::fs::write(&path, text).unwrap();
            let tail = LogTail::read_last(&path, most).await.unwrap();
            (tail.text, tail.begin, tail.end)
        };
        assert_eq!(
            shown("one\ntwo\nthr", 100).await,
            ("one\ntwo\n".into(), 0, 8)
        );
        assert_eq!(shown("one\ntwo\nthr", 8).await, ("two\n".into(), 4, 8));
        assert_eq!(shown("endless", 4).await, (String::new(), 7, 7));
        assert_eq!(LogTail::read(&folder.path().join("none")).await.end, 0);
    }
}
