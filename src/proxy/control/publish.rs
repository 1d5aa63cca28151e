//! Publishes a new table: checks it, stores it, then serves it.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::Mutex;

use super::disk;
use crate::proxy::route::routes::Routes;
use crate::proxy::route::table::Table;

/// Why a table is not published.
#[derive(Debug, Error)]
pub enum PublishError {
    #[error("generation {offered} is older than the live generation {live}")]
    Older { offered: u64, live: u64 },
    #[error("generation {0} is live with different routes: a change must have a new generation")]
    Different(u64),
    #[error("another proxy is taking over: try again in a moment")]
    Frozen,
    #[error("failed to store the table: {0}; the previous one stays in force")]
    Store(#[from] std::io::Error),
}

/// What happens to a published table besides routing by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    Stored,
    /// Nothing is published, because a successor is reading the file.
    Frozen,
    /// The table is not stored here, because the successor stores it.
    Followed,
}

/// The only place that changes the live table.
pub struct Publisher {
    folder: PathBuf,
    routes: Arc<Routes>,
    /// Locked during a publish, so that there is only one at a time.
    keeping: Mutex<Keeping>,
}

impl Publisher {
    /// Tables are stored in `folder`.
    pub fn new(folder: PathBuf, routes: Arc<Routes>) -> Self {
        Self {
            folder,
            routes,
            keeping: Mutex::new(Keeping::Stored),
        }
    }

    /// Replaces the table. Returns its generation once the table is on disk and every request claimed
    /// from now on is routed by it.
    pub async fn publish(&self, table: Table) -> Result<u64, PublishError> {
        let keeping = self.keeping.lock().await;
        if *keeping == Keeping::Frozen {
            return Err(PublishError::Frozen);
        }
        let now = self.routes.table();
        let (offered, live) = (table.generation, now.generation);
        if offered < live {
            return Err(PublishError::Older { offered, live });
        }
        if *now == table {
            return Ok(live);
        }
        if offered == live {
            return Err(PublishError::Different(live));
        }
        // On disk before any request is routed by it: after a crash the proxy must not go back to a
        // release that the agent considers replaced and stops.
        let folder = self.folder.clone();
        let stored = *keeping == Keeping::Stored;
        let table = tokio::task::spawn_blocking(move || {
            if stored {
                disk::store(&folder, &table)?;
            }
            Ok(table)
        })
        .await
        .map_err(std::io::Error::other)?
        .map_err(PublishError::Store)?;
        self.routes.switch(table);
        Ok(offered)
    }

    /// Waits for a publish in progress to finish; `keeping` applies to those that follow.
    pub async fn keep(&self, keeping: Keeping) {
        *self.keeping.lock().await = keeping;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::route::table::tests::route;
    use crate::proxy::watch::Watches;

    #[tokio::test]
    async fn an_older_or_altered_table_is_refused_and_the_same_is_fine() {
        let folder = tempfile::tempdir().unwrap();
        let routes = Arc::new(Routes::new(Table::default(), Arc::<Watches>::default()));
        let publisher = Publisher::new(folder.path().into(), routes);
        let table =
            |generation, app: &str| Table::new(generation, vec![route(app, &[], "/", generation)]);
        assert_eq!(publisher.publish(table(5, "a")).await.unwrap(), 5);
        assert_eq!(publisher.publish(table(5, "a")).await.unwrap(), 5);
        let older = publisher.publish(table(4, "a")).await;
        assert!(matches!(older, Err(PublishError::Older { .. })));
        let other = publisher.publish(table(5, "b")).await;
        assert!(matches!(other, Err(PublishError::Different(5))));
        assert_eq!(disk::load(folder.path()).generation, 5);
    }
}
