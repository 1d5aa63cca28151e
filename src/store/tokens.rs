//! The API's tokens that people have created. Only hashes are kept. The token `admin` is not among
//! them: it is in the agent's environment or in a file.

use rusqlite::{Connection, OptionalExtension, Row};

use super::{Result, StoreError, json, now, parsed, to_json};
use crate::principal::{Requester, Role, Scope};

#[derive(Debug, Clone)]
pub struct Token {
    pub name: String,
    /// The beginning of the token, by which its owner recognises it.
    pub prefix: String,
    pub role: Role,
    pub apps: Scope,
    pub created_at: i64,
    pub created_by: Option<Requester>,
    /// `None`: never.
    pub expires_at: Option<i64>,
    /// To the minute; `None` if it has not been used.
    pub used_at: Option<i64>,
}

impl Token {
    pub fn is_expired(&self) -> bool {
        self.expires_at.is_some_and(|at| at <= now())
    }
}

/// What is known of a token when it is created.
pub struct NewToken<'a> {
    pub name: &'a str,
    /// SHA-256 of the token, in hex.
    pub hash: &'a str,
    pub prefix: &'a str,
    pub role: Role,
    pub apps: &'a Scope,
    pub expires_at: Option<i64>,
    pub by: &'a Requester,
}

/// How exactly it is recorded when a token was used, in milliseconds.
const USED: i64 = 60_000;

/// Refused if there is one of this name.
pub fn insert(db: &Connection, new: &NewToken<'_>) -> Result<()> {
    if get(db, new.name)?.is_some() {
        let why = format!("there is a token `{}` already", new.name);
        return Err(StoreError::Refused(why));
    }
    let mut insert = db.prepare_cached(
        "INSERT INTO tokens
            (name, hash, prefix, role, all_apps, created_at, created_by, expires_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    insert.execute((
        new.name,
        new.hash,
        new.prefix,
        new.role.as_str(),
        *new.apps == Scope::All,
        now(),
        to_json(new.by)?,
        new.expires_at,
    ))?;
    if let Scope::Apps(apps) = new.apps {
        let mut insert =
            db.prepare_cached("INSERT OR IGNORE INTO token_apps (token, app) VALUES (?1, ?2)")?;
        for app in apps {
            insert.execute((new.name, app.as_str()))?;
        }
    }
    Ok(())
}

pub fn get(db: &Connection, name: &str) -> Result<Option<Token>> {
    let mut query = db.prepare_cached("SELECT * FROM tokens WHERE name = ?1")?;
    let found = query.query_row([name], from_row).optional()?;
    found.map(|found| with_apps(db, found)).transpose()
}

/// The token with this hash, unless it has expired.
pub fn with_hash(db: &Connection, hash: &str) -> Result<Option<Token>> {
    let mut query = db.prepare_cached(
        "SELECT * FROM tokens WHERE hash = ?1 OR (old_hash = ?1 AND old_until > ?2)",
    )?;
    let found = query.query_row((hash, now()), from_row).optional()?;
    let found = found.filter(|found| !found.is_expired());
    found.map(|found| with_apps(db, found)).transpose()
}

/// All of them, by name.
pub fn all(db: &Connection) -> Result<Vec<Token>> {
    let mut query = db.prepare_cached("SELECT * FROM tokens ORDER BY name")?;
    let rows = query.query_map([], from_row)?;
    let found = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    found.into_iter().map(|it| with_apps(db, it)).collect()
}

/// Whether the use of a token has to be recorded now.
pub fn is_used_anew(token: &Token) -> bool {
    token.used_at.is_none_or(|at| now() - at >= USED)
}

pub fn set_used(db: &Connection, name: &str) -> Result<()> {
    let mut update = db.prepare_cached("UPDATE tokens SET used_at = ?2 WHERE name = ?1")?;
    update.execute((name, now()))?;
    Ok(())
}

/// Replaces the text of a token; the old one is good until `keep`, in milliseconds since 1970. Returns whether
/// there is such a token.
pub fn rotate(
    db: &Connection,
    name: &str,
    hash: &str,
    prefix: &str,
    keep: Option<i64>,
) -> Result<bool> {
    let changed = db.execute(
        "UPDATE tokens SET old_hash = iif(?4 IS NULL, NULL, hash), old_until = ?4, hash = ?2, prefix = ?3
         WHERE name = ?1",
        (name, hash, prefix, keep),
    )?;
    Ok(changed > 0)
}

/// Whether there was one.
pub fn delete(db: &Connection, name: &str) -> Result<bool> {
    db.execute("DELETE FROM token_apps WHERE token = ?1", [name])?;
    Ok(db.execute("DELETE FROM tokens WHERE name = ?1", [name])? > 0)
}

fn with_apps(db: &Connection, token: Token) -> Result<Token> {
    if token.apps == Scope::All {
        return Ok(token);
    }
    let mut query =
        db.prepare_cached("SELECT app FROM token_apps WHERE token = ?1 ORDER BY app")?;
    let rows = query.query_map([&token.name], |row| parsed(row, "app"))?;
    let apps = Scope::Apps(rows.collect::<rusqlite::Result<_>>()?);
    Ok(Token { apps, ..token })
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Token> {
    Ok(Token {
        name: row.get("name")?,
        prefix: row.get("prefix")?,
        role: parsed(row, "role")?,
        apps: match row.get("all_apps")? {
            true => Scope::All,
            false => Scope::Apps(Vec::new()),
        },
        created_at: row.get("created_at")?,
        created_by: json(row, "created_by")?,
        expires_at: row.get("expires_at")?,
        used_at: row.get("used_at")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_token_is_found_by_its_hash_until_it_expires_or_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let apps = Scope::Apps(vec!["b".parse().unwrap(), "a".parse().unwrap()]);
            let new = |name, hash, expires_at| NewToken {
                name,
                hash,
                prefix: "cutover_12",
                role: Role::Deploy,
                apps: &apps,
                expires_at,
                by: &Requester::Agent,
            };
            insert(db, &new("ci", "1", Some(now() + 60_000)))?;
            insert(db, &new("old", "2", Some(now() - 1)))?;
            let again = insert(db, &new("ci", "3", None));
            assert!(matches!(again, Err(StoreError::Refused(_))));
            let found = with_hash(db, "1")?.unwrap();
            let sorted = Scope::Apps(vec!["a".parse().unwrap(), "b".parse().unwrap()]);
            assert_eq!((found.role, &found.apps), (Role::Deploy, &sorted));
            assert!(is_used_anew(&found));
            set_used(db, "ci")?;
            assert!(!is_used_anew(&get(db, "ci")?.unwrap()));
            assert!(with_hash(db, "2")?.is_none() && with_hash(db, "3")?.is_none());
            assert!(rotate(db, "ci", "4", "p", Some(now() + 60_000))?);
            assert!(with_hash(db, "1")?.is_some() && with_hash(db, "4")?.is_some());
            assert!(rotate(db, "ci", "1", "p", None)? && !rotate(db, "none", "5", "p", None)?);
            assert!(with_hash(db, "4")?.is_none());
            assert_eq!(all(db)?.len(), 2);
            assert!(delete(db, "ci")? && !delete(db, "ci")?);
            assert!(with_hash(db, "1")?.is_none());
            Ok(())
        });
        write.await.unwrap();
    }
}
