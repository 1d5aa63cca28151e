//! Variables that Cutover keeps for apps, in place of those of deploy.toml. Not secret; those are kept in
//! `secrets`.

use std::collections::BTreeMap;

use rusqlite::{Connection, Row};

use super::{Result, json, now, to_json};
use crate::ids::AppName;
use crate::principal::Requester;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub value: String,
    pub set_at: i64,
    pub set_by: Option<Requester>,
}

/// Returns whether it had another value, or none.
pub fn set(
    db: &Connection,
    app: &AppName,
    name: &str,
    value: &str,
    by: &Requester,
) -> Result<bool> {
    let mut upsert = db.prepare_cached(
        "INSERT INTO variables (app, name, value, set_at, set_by) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (app, name) DO UPDATE SET value = ?3, set_at = ?4, set_by = ?5
         WHERE value <> ?3",
    )?;
    let count = upsert.execute((app.as_str(), name, value, now(), to_json(by)?))?;
    Ok(count > 0)
}

/// Whether there was one.
pub fn unset(db: &Connection, app: &AppName, name: &str) -> Result<bool> {
    let mut delete = db.prepare_cached("DELETE FROM variables WHERE app = ?1 AND name = ?2")?;
    Ok(delete.execute((app.as_str(), name))? > 0)
}

pub fn unset_all(db: &Connection, app: &AppName) -> Result<()> {
    db.execute("DELETE FROM variables WHERE app = ?1", [app.as_str()])?;
    Ok(())
}

/// The variables of an app, by name.
pub fn of_app(db: &Connection, app: &AppName) -> Result<Vec<Variable>> {
    let mut query = db.prepare_cached("SELECT * FROM variables WHERE app = ?1 ORDER BY name")?;
    let rows = query.query_map([app.as_str()], from_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Their values by name.
pub fn values(db: &Connection, app: &AppName) -> Result<BTreeMap<String, String>> {
    let all = of_app(db, app)?.into_iter();
    Ok(all.map(|it| (it.name, it.value)).collect())
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Variable> {
    Ok(Variable {
        name: row.get("name")?,
        value: row.get("value")?,
        set_at: row.get("set_at")?,
        set_by: json(row, "set_by")?,
    })
}
