//! Whether the agent that ran before this one ended in order.

use rusqlite::{Connection, OptionalExtension};

use super::events::{self, Said};
use super::{Result, now};
use crate::config::NotifyEvent;

/// An agent begins. If the one before did not end in order, that is told.
pub fn begin(db: &Connection) -> Result<()> {
    let mut query = db.prepare_cached("SELECT value FROM meta WHERE key = 'running_since'")?;
    let before: Option<String> = query.query_row([], |row| row.get(0)).optional()?;
    db.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES ('running_since', ?1)",
        [now().to_string()],
    )?;
    if before.is_none() {
        return Ok(());
    }
    let said = Said {
        about: NotifyEvent::Restarted,
        app: None,
        title: "The agent was restarted".to_owned(),
        text: "It did not stop in order: it crashed or was killed, or the server restarted. \
               Deployments go on where they were."
            .to_owned(),
    };
    events::said(db, NotifyEvent::Restarted, said)
}

/// Writes next to nothing, to see whether the database can be written.
pub fn touch(db: &Connection) -> Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES ('touched_at', ?1)",
        [now().to_string()],
    )?;
    Ok(())
}

/// The agent ends in order.
pub fn end(db: &Connection) -> Result<()> {
    db.execute("DELETE FROM meta WHERE key = 'running_since'", [])?;
    Ok(())
}
