//! The last table, kept on disk so that the proxy can start without the agent. The file has two lines,
//! the table and its SHA-256; the previous file is kept as `routes.json.1`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::proxy::route::table::Table;

const NAME: &str = "routes.json";
const BEFORE: &str = "routes.json.1";

/// Writes `table` into `folder` so that a crash at any point leaves a whole file. Blocks.
pub fn store(folder: &Path, table: &Table) -> io::Result<()> {
    let text = with_sum(serde_json::to_vec(table)?);
    let temp = folder.join("routes.json.new");
    let mut file = File::create(&temp)?;
    file.write_all(&text)?;
    // Its content must be on disk before the name points to it.
    file.sync_all()?;
    let (name, before) = (folder.join(NAME), folder.join(BEFORE));
    // A second name for the current file, so that `routes.json` exists at every moment.
    let _ = fs::remove_file(&before);
    match fs::hard_link(&name, &before) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(&temp, &name)?;
    File::open(folder)?.sync_all()
}

/// The last intact table, or an empty one if there never was any. Damage is logged and not returned,
/// since the proxy must start in any case. Blocks.
pub fn load(folder: &Path) -> Table {
    for name in [NAME, BEFORE] {
        match fs::read(folder.join(name)).map(|text| parse(&text)) {
            Ok(Ok(table)) => {
                if name == BEFORE {
                    tracing::warn!(
                        generation = table.generation,
                        "starting from `{BEFORE}`, the previous table, until the agent publishes \
                         the current one"
                    );
                }
                return table;
            }
            Ok(Err(why)) => tracing::error!("ignoring `{name}`: {why}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!("failed to read `{name}`: {error}"),
        }
    }
    Table::default()
}

/// Appends the checksum to a table's text, as both are written to the file.
pub fn with_sum(mut table: Vec<u8>) -> Vec<u8> {
    let sum = hex::encode(Sha256::digest(&table));
    table.extend_from_slice(format!("\nsha256 {sum}\n").as_bytes());
    table
}

/// The table in a file's text, or what is wrong with it.
pub fn parse(text: &[u8]) -> Result<Table, String> {
    let text = text.strip_suffix(b"\n").ok_or("truncated")?;
    let end = text.iter().rposition(|&b| b == b'\n');
    let (table, sum) = text.split_at(end.ok_or("truncated")?);
    let wanted = format!("\nsha256 {}", hex::encode(Sha256::digest(table)));
    if sum != wanted.as_bytes() {
        return Err("checksum mismatch".into());
    }
    serde_json::from_slice(table).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(generation: u64) -> Table {
        Table::new(
            generation,
            vec![crate::proxy::route::table::Route {
                app: "a".into(),
                ..Default::default()
            }],
        )
    }

    #[test]
    fn a_torn_or_altered_file_falls_back_to_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert_eq!(load(folder), Table::default());
        store(folder, &table(1)).unwrap();
        store(folder, &table(2)).unwrap();
        assert_eq!(load(folder), table(2));
        let whole = fs::read(folder.join(NAME)).unwrap();
        assert_eq!(parse(&whole), Ok(table(2)));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "cut at {cut}");
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(parse(&altered).is_err(), "altered at {at}");
        }
        fs::write(folder.join(NAME), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(load(folder), table(1));
        fs::remove_file(folder.join(NAME)).unwrap();
        assert_eq!(load(folder), table(1));
    }
}
