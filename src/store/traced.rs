//! Which deployments have been told as traces: each once it has ended, in whatever order they end.

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::deployments::{self, Deployment};
use super::{Result, steps, to_json};
use crate::ids::DeploymentId;

/// How many deployments are looked at in one go.
const AT_ONCE: i64 = 1000;

/// How far the telling has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Later ones have not been looked at.
    after: String,
    /// Earlier ones that have not been told yet.
    left: Vec<DeploymentId>,
}

/// A deployment that has ended.
pub struct Ended {
    pub deployment: Deployment,
    pub steps: Vec<steps::Record>,
}

/// How far it has come; the first time, everything that has ended until now counts as told.
pub fn told(db: &Connection) -> Result<Told> {
    let mut query = db.prepare_cached("SELECT value FROM meta WHERE key = 'traced'")?;
    let text: Option<String> = query.query_row([], |row| row.get(0)).optional()?;
    if let Some(told) = text.and_then(|text| serde_json::from_str(&text).ok()) {
        return Ok(told);
    }
    let newest = "SELECT coalesce(max(id), '') FROM deployments";
    let after = db.query_row(newest, [], |row| row.get(0))?;
    let open = deployments::open(db)?.into_iter();
    let told = Told {
        after,
        left: open.map(|deployment| deployment.id).collect(),
    };
    record(db, &told)?;
    Ok(told)
}

pub fn record(db: &Connection, told: &Told) -> Result<()> {
    db.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES ('traced', ?1)",
        [to_json(told)?],
    )?;
    Ok(())
}

/// Nobody is told any more: what ends from now on is not told later.
pub fn forget(db: &Connection) -> Result<()> {
    db.execute("DELETE FROM meta WHERE key = 'traced'", [])?;
    Ok(())
}

/// At most `limit` deployments that have ended and were not told, and how far it has come once they are.
pub fn ended(db: &Connection, told: &Told, limit: usize) -> Result<(Vec<Ended>, Told)> {
    let mut query =
        db.prepare_cached("SELECT id FROM deployments WHERE id > ?1 ORDER BY id LIMIT ?2")?;
    let new = query.query_map((&told.after, AT_ONCE), |row| super::parsed(row, "id"))?;
    let new = new.collect::<rusqlite::Result<Vec<DeploymentId>>>()?;
    let mut next = Told {
        after: new.last().map_or(told.after.clone(), ToString::to_string),
        left: Vec::new(),
    };
    let mut all = Vec::new();
    for id in told.left.iter().chain(&new) {
        match deployments::get(db, id)? {
            Some(deployment) if deployment.ended_at.is_some() && all.len() < limit => {
                let steps = steps::of(db, id)?;
                all.push(Ended { deployment, steps });
            }
            Some(_) => next.left.push(id.clone()),
            None => {}
        }
    }
    Ok((all, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Event;
    use crate::store::Store;
    use crate::store::fixture::release;

    #[tokio::test]
    async fn each_deployment_is_told_once_when_it_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let new = |db: &Connection| {
                let id = release(db, 1)?.deployment;
                // Under way, so that no newer one supersedes it.
                let begin = "UPDATE deployments SET state = 'building' WHERE id = ?1";
                db.execute(begin, [id.as_str()])?;
                Ok::<_, crate::store::StoreError>(id)
            };
            let end = |db, id: &_| deployments::end(db, id, Event::Fail, None);
            let ids = |all: &[Ended]| -> Vec<_> {
                all.iter().map(|it| it.deployment.id.clone()).collect()
            };
            let before = new(db)?;
            end(db, &before)?;
            let open = new(db)?;
            let start = told(db)?;
            let (slow, fast) = (new(db)?, new(db)?);
            end(db, &fast)?;
            let (first, next) = ended(db, &start, 9)?;
            assert_eq!(
                ids(&first),
                std::slice::from_ref(&fast),
                "not what had ended before"
            );
            // Killed before it was recorded: again the same.
            assert_eq!(ids(&ended(db, &told(db)?, 9)?.0), [fast]);
            record(db, &next)?;
            end(db, &slow)?;
            end(db, &open)?;
            let (second, next) = ended(db, &told(db)?, 1)?;
            assert_eq!(ids(&second), [open]);
            let (third, next) = ended(db, &next, 9)?;
            assert_eq!(ids(&third), [slow]);
            assert!(ended(db, &next, 9)?.0.is_empty() && next.left.is_empty());
            forget(db)?;
            assert!(ended(db, &told(db)?, 9)?.0.is_empty());
            Ok(())
        });
        write.await.unwrap();
    }
}
