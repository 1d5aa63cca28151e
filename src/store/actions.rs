//! What people had the agent do other than to deploy: which app or what else it removed, and what it
//! adopted. Recorded before it is done.

use rusqlite::Connection;

use super::{Result, to_json};
use crate::ids::{ActionId, AppName};
use crate::principal::Requester;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Remove,
    Gc,
    Adopt,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Remove => "remove",
            Kind::Gc => "gc",
            Kind::Adopt => "adopt",
        }
    }
}

/// Records an action; `detail` says in JSON what it concerns.
pub fn insert(
    db: &Connection,
    kind: Kind,
    app: Option<&AppName>,
    detail: &serde_json::Value,
    by: &Requester,
) -> Result<()> {
    let mut insert = db.prepare_cached(
        "INSERT INTO actions (id, action, app, detail, requested_by) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    insert.execute((
        ActionId::new().as_str(),
        kind.as_str(),
        app.map(AppName::as_str),
        detail.to_string(),
        to_json(by)?,
    ))?;
    Ok(())
}
