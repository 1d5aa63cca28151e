//! What people had the agent do other than to deploy: what it removed, adopted or took over from
//! deploy.toml, which scales, secrets and variables it changed, what it stopped and started, and which
//! programs it ran for them. Recorded before it is done.

use rusqlite::{Connection, Row};

use super::{Result, json, maybe_parsed, parsed, to_json};
use crate::ids::{ActionId, AppName};
use crate::principal::Requester;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Remove,
    Gc,
    Adopt,
    Reload,
    Scale,
    Secrets,
    CreateToken,
    RevokeToken,
    RotateToken,
    Variables,
    Run,
    Exec,
    Stop,
    Start,
    Rekey,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Action {
    pub id: ActionId,
    /// A version of Cutover that is older than the database may not know it.
    pub kind: String,
    /// `None` if it concerns no app, or several.
    pub app: Option<AppName>,
    pub detail: serde_json::Value,
    pub by: Requester,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Remove => "remove",
            Kind::Gc => "gc",
            Kind::Adopt => "adopt",
            Kind::Reload => "reload",
            Kind::Scale => "scale",
            Kind::Secrets => "secrets",
            Kind::CreateToken => "create-token",
            Kind::RevokeToken => "revoke-token",
            Kind::RotateToken => "rotate-token",
            Kind::Variables => "variables",
            Kind::Run => "run",
            Kind::Exec => "exec",
            Kind::Stop => "stop",
            Kind::Start => "start",
            Kind::Rekey => "rekey",
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

/// Those that `wanted` admits, newest first, older than the id `before`.
pub fn list(
    db: &Connection,
    before: Option<&str>,
    limit: usize,
    wanted: impl Fn(&Action) -> bool,
) -> Result<Vec<Action>> {
    let mut query = db.prepare_cached("SELECT * FROM actions WHERE id < ?1 ORDER BY id DESC")?;
    let mut found = Vec::new();
    for action in query.query_map([before.unwrap_or("~")], from_row)? {
        let action = action?;
        if wanted(&action) {
            found.push(action);
        }
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Action> {
    let missing = || rusqlite::Error::InvalidQuery;
    Ok(Action {
        id: parsed(row, "id")?,
        kind: row.get("action")?,
        app: maybe_parsed(row, "app")?,
        detail: json(row, "detail")?.ok_or_else(missing)?,
        by: json(row, "requested_by")?.ok_or_else(missing)?,
    })
}
