//! Checks for `doctor` whether the database can be used: from another process, changing nothing.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

/// Checks `data_dir/cutover.db`; one that does not exist is fine. The error says what is wrong. Blocks
/// the thread.
pub fn examine(data_dir: &Path) -> Result<(), String> {
    let path = data_dir.join("cutover.db");
    if !path.exists() {
        return Ok(());
    }
    let found = || {
        let db = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(Duration::from_secs(5))?;
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    };
    match found() {
        Ok(said) if said == "ok" => Ok(()),
        Ok(said) => Err(said),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_damaged_database_is_found() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(examine(folder.path()), Ok(()));
        drop(Store::open(folder.path()).unwrap());
        assert_eq!(examine(folder.path()), Ok(()));
        let path = folder.path().join("cutover.db");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[..100].fill(b'x');
        let damaged = tempfile::tempdir().unwrap();
        std::fs::write(damaged.path().join("cutover.db"), bytes).unwrap();
        assert!(examine(damaged.path()).is_err());
    }
}
