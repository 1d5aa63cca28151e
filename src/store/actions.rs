//! The audit log: what people had the agent do, what they deployed and rolled back, and who came in or was
//! refused. Recorded before it is done.
//!
//! Entries are numbered, and each carries a hash over itself and the hash of the one before, so that an
//! entry that was changed or deleted shows. The oldest are deleted in the end: the chain then begins with
//! the hash of the last one that is gone.

use rusqlite::{Connection, Row};
use sha2::{Digest, Sha256};

use super::{Result, json, maybe_parsed, parsed, to_json};
use crate::ids::{ActionId, AppName};
use crate::principal::Requester;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deploy,
    Rollback,
    Restart,
    Cancel,
    SignIn,
    SignOut,
    Refused,
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
    Cron,
    Stop,
    Start,
    Rekey,
    Renew,
    Pin,
    Unpin,
    Maintenance,
    LogLevel,
}

/// Something that was done.
#[derive(Debug, Clone)]
pub struct Action {
    pub id: ActionId,
    /// Its place in the log, from 1 on.
    pub seq: i64,
    /// A version of Cutover that is older than the database may not know it.
    pub kind: String,
    /// `None` if it concerns no app, or several.
    pub app: Option<AppName>,
    pub detail: serde_json::Value,
    pub by: Requester,
    /// SHA-256 in hex; empty if it is older than the chain.
    pub hash: String,
}

/// Which entries, of all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub app: Option<AppName>,
    pub kind: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    pub since: Option<i64>,
}

/// What a look at the whole chain found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub count: u64,
    /// The place and the hash of the newest entry.
    pub newest: (i64, String),
    /// The first place where the chain is broken, and how.
    pub broken: Option<(i64, String)>,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Deploy => "deploy",
            Kind::Rollback => "rollback",
            Kind::Restart => "restart",
            Kind::Cancel => "cancel",
            Kind::SignIn => "sign-in",
            Kind::SignOut => "sign-out",
            Kind::Refused => "refused",
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
            Kind::Cron => "cron",
            Kind::Stop => "stop",
            Kind::Start => "start",
            Kind::Rekey => "rekey",
            Kind::Renew => "renew",
            Kind::Pin => "pin",
            Kind::Unpin => "unpin",
            Kind::Maintenance => "maintenance",
            Kind::LogLevel => "log-level",
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
    let mut last = db.prepare_cached("SELECT seq, hash FROM action_chain")?;
    let (last, before): (i64, String) = last.query_row([], |row| {
        let row = (row.get("seq")?, row.get("hash")?);
        Ok(row)
    })?;
    let (id, seq) = (ActionId::new(), last + 1);
    let (detail, by) = (detail.to_string(), to_json(by)?);
    let app = app.map(AppName::as_str);
    let hash = hash(
        &before,
        seq,
        (id.as_str(), kind.as_str(), app, &detail, &by),
    )?;
    let mut insert = db.prepare_cached(
        "INSERT INTO actions (id, action, app, detail, requested_by, seq, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    insert.execute((id.as_str(), kind.as_str(), app, &detail, &by, seq, &hash))?;
    let mut update = db.prepare_cached("UPDATE action_chain SET seq = ?1, hash = ?2")?;
    update.execute((seq, hash))?;
    Ok(())
}

/// Id, action, app, detail and requester, as they are stored.
type Stored<'a> = (&'a str, &'a str, Option<&'a str>, &'a str, &'a str);

fn hash(before: &str, seq: i64, entry: Stored<'_>) -> Result<String> {
    let text = to_json(&(before, seq, entry))?;
    Ok(hex::encode(Sha256::digest(text)))
}

/// Those that match the filter and that `seen` admits, newest first, older than the id `before`.
pub fn list(
    db: &Connection,
    before: Option<&str>,
    limit: usize,
    filter: &Filter,
    seen: impl Fn(&Action) -> bool,
) -> Result<Vec<Action>> {
    let since = filter.since.map_or(String::new(), |since| {
        crate::ids::first_of('x', since.max(0))
    });
    let app = filter.app.as_ref().map(AppName::as_str);
    let sql = match app {
        Some(_) => {
            "SELECT * FROM actions WHERE app = ?4 AND id < ?1 AND id >= ?2
                    AND (?3 IS NULL OR action = ?3) ORDER BY id DESC"
        }
        None => {
            "SELECT * FROM actions WHERE id < ?1 AND id >= ?2
                 AND (?3 IS NULL OR action = ?3) AND ?4 IS NULL ORDER BY id DESC"
        }
    };
    let mut query = db.prepare_cached(sql)?;
    let given = (before.unwrap_or("~"), since, &filter.kind, app);
    let mut found = Vec::new();
    for action in query.query_map(given, from_row)? {
        let action = action?;
        if seen(&action) {
            found.push(action);
        }
        if found.len() == limit {
            break;
        }
    }
    Ok(found)
}

/// Follows the chain from its beginning to its end.
pub fn check(db: &Connection) -> Result<Checked> {
    let mut chain = db.prepare("SELECT * FROM action_chain")?;
    let (mut seq, mut before, newest) = chain.query_row([], |row| {
        let newest: (i64, String) = (row.get("seq")?, row.get("hash")?);
        let gone: (i64, String) = (row.get("gone_seq")?, row.get("gone_hash")?);
        Ok((gone.0, gone.1, newest))
    })?;
    let (mut count, mut broken) = (0, None);
    let mut query = db.prepare("SELECT * FROM actions ORDER BY seq")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let (at, said): (i64, String) = (row.get("seq")?, row.get("hash")?);
        count += 1;
        let text = |name: &str| row.get::<_, String>(name);
        let (id, kind, detail) = (text("id")?, text("action")?, text("detail")?);
        let (app, by): (Option<String>, _) = (row.get("app")?, text("requested_by")?);
        let entry = (&id[..], &kind[..], app.as_deref(), &detail[..], &by[..]);
        // Entries from before the chain have no hash.
        let is_whole = (said.is_empty() && before.is_empty()) || said == hash(&before, at, entry)?;
        if broken.is_none() && at != seq + 1 {
            broken = Some((seq + 1, missing(seq + 1, at - 1)));
        } else if broken.is_none() && !is_whole {
            let how = format!("entry {at} is not what was recorded");
            broken = Some((at, how));
        }
        (seq, before) = (at, said);
    }
    if broken.is_none() && (seq, &before) != (newest.0, &newest.1) {
        broken = Some((seq + 1, missing(seq + 1, newest.0)));
    }
    Ok(Checked {
        count,
        newest,
        broken,
    })
}

fn missing(from: i64, to: i64) -> String {
    match from >= to {
        true => format!("entry {from} is missing"),
        false => format!("the entries {from} to {to} are missing"),
    }
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Action> {
    let missing = || rusqlite::Error::InvalidQuery;
    Ok(Action {
        id: parsed(row, "id")?,
        seq: row.get("seq")?,
        kind: row.get("action")?,
        app: maybe_parsed(row, "app")?,
        detail: json(row, "detail")?.ok_or_else(missing)?,
        by: json(row, "requested_by")?.ok_or_else(missing)?,
        hash: row.get("hash")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    /// What the chain says after this was done to the database behind its back.
    async fn after(sql: &'static str) -> Option<i64> {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(move |db| {
            for n in 1..=9 {
                let detail = serde_json::json!({ "n": n });
                insert(db, Kind::Reload, None, &detail, &Requester::Agent)?;
            }
            db.execute_batch(sql)?;
            let checked = check(db)?;
            Ok(checked.broken.map(|(seq, _)| seq))
        });
        write.await.unwrap()
    }

    #[tokio::test]
    async fn what_was_changed_or_deleted_shows() {
        assert_eq!(after("").await, None);
        for (sql, seq) in [
            ("DELETE FROM actions WHERE seq = 1", 1),
            ("DELETE FROM actions WHERE seq IN (4, 5)", 4),
            ("DELETE FROM actions WHERE seq = 9", 9),
            ("DELETE FROM actions", 1),
            ("UPDATE actions SET detail = '{}' WHERE seq = 7", 7),
            ("UPDATE actions SET app = 'other' WHERE seq = 2", 2),
            ("UPDATE actions SET hash = '' WHERE seq = 1", 2),
            (
                "DELETE FROM actions WHERE seq = 5; UPDATE actions SET seq = seq - 1 WHERE seq > 5",
                5,
            ),
        ] {
            assert_eq!(after(sql).await, Some(seq), "{sql}");
        }
    }
}
