//! Routes that are in the proxy but not in the database. A route's generation is in the database before
//! the proxy gets it, so a proxy that is ahead means that the database was lost, damaged or restored
//! from a backup. Such routes keep serving until the app is deployed or removed.

use std::collections::BTreeSet;

use parking_lot::Mutex;
use rusqlite::Connection;

use crate::ids::AppName;
use crate::proxy::table::{Route, Table};
use crate::store::{StoreError, apps};

/// The apps that were found by the last check.
#[derive(Default)]
pub struct Unrecorded(Mutex<BTreeSet<String>>);

impl Unrecorded {
    pub fn apps(&self) -> Vec<String> {
        self.0.lock().iter().cloned().collect()
    }

    /// Stores the apps, and logs each one that was not known before.
    pub fn are(&self, apps: BTreeSet<String>) {
        let mut known = self.0.lock();
        for app in apps.difference(&known) {
            tracing::error!(
                app,
                "the proxy serves a release that the database does not know: the database was lost, \
                 damaged or restored from a backup. The app keeps serving; run `cutover adopt`, restore a \
                 newer copy of the database, or deploy or remove the app"
            );
        }
        for app in known.difference(&apps) {
            tracing::info!(
                app,
                "the database knows the release that the proxy serves again"
            );
        }
        *known = apps;
    }
}

/// The routes of `before` that have targets and are newer than everything that the database knows about
/// their app.
pub fn routes(db: &Connection, before: Table) -> Result<Vec<Route>, StoreError> {
    let mut unrecorded = Vec::new();
    for route in before.routes {
        // The agent's own route belongs to no app.
        let Ok(app) = route.app.parse::<AppName>() else {
            continue;
        };
        let serves = route.shares.iter().any(|share| !share.targets.is_empty());
        if serves && apps::serving(db, &app)?.generation < route.generation {
            unrecorded.push(route);
        }
    }
    Ok(unrecorded)
}
