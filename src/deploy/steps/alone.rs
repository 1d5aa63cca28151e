//! Processes with `overlap = false`, which never run beside those of another release, nor beside those of their own
//! that are still stopping.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::Connection;

use crate::deploy::Result;
use crate::ids::ServiceName;
use crate::store::instances;
use crate::store::releases::{self, Release};

/// What has to end before a process starts.
#[derive(Debug, PartialEq, Eq)]
pub struct Old {
    pub name: ServiceName,
    /// The longest that any of it may take to stop.
    pub grace: Duration,
}

/// The processes of a release that have to wait, each with what has to end first: the old one of the same name or, of
/// a process that is new, one that the release has no more, as it may be its own former name.
pub fn waits(db: &Connection, release: &Release) -> Result<BTreeMap<ServiceName, Old>> {
    let mut waits: BTreeMap<_, Old> = BTreeMap::new();
    let alone = release.services.iter().filter(|it| !it.settings.overlap);
    let alone: Vec<_> = alone.map(|it| &it.name).collect();
    for instance in instances::beside(db, &release.app, &release.id)? {
        let Some(of) = releases::get(db, &instance.release)? else {
            continue;
        };
        let Some(old) = of.service(&instance.service) else {
            continue;
        };
        let gone = !old.settings.overlap && release.service(&old.name).is_none();
        let may_be = |name: &ServiceName| *name == old.name || gone && of.service(name).is_none();
        for name in alone.iter().filter(|name| may_be(name)) {
            let found = waits.entry((*name).clone()).or_insert_with(|| Old {
                name: old.name.clone(),
                grace: Duration::ZERO,
            });
            found.grace = found.grace.max(old.settings.stop_grace);
        }
    }
    Ok(waits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ReleaseId;
    use crate::store::Store;
    use crate::store::fixture;
    use crate::store::instances::Instance;

    #[tokio::test]
    async fn a_process_waits_for_the_old_one_also_if_that_has_another_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let name = |name: &str| -> ServiceName { name.parse().unwrap() };
            let like = fixture::release(db, 1)?;
            // A release with these processes, of which those with a mark run alone.
            let made = |processes: &[&str]| {
                let mut release = like.clone();
                release.id = ReleaseId::new();
                release.services.clear();
                for process in processes {
                    let mut service = like.services[0].clone();
                    service.name = name(process.trim_end_matches('!'));
                    service.settings.overlap = !process.ends_with('!');
                    release.services.push(service);
                }
                release
            };
            let run = |release: &Release, process: &str| {
                let instance = Instance {
                    name: format!("{}-{process}", release.id),
                    app: release.app.clone(),
                    release: release.id.clone(),
                    service: name(process),
                    deployment: release.deployment.clone(),
                    endpoint: None,
                    mark: None,
                    engine: None,
                };
                instances::insert(db, &instance)
            };
            for (old, running, new, expected) in [
                (&["a"][..], &["a"][..], &["a"][..], &[][..]),
                (&["a"], &["a"], &["a!"], &[("a", "a")]),
                (&["a!"], &["a"], &["b!"], &[("b", "a")]),
                // It was not alone before either.
                (&["a"], &["a"], &["b!"], &[]),
                (&["a!"], &["a"], &["b"], &[]),
                (&["a!", "b!"], &["a", "b"], &["b!"], &[("b", "b")]),
                // One that was there before is not the other by a new name.
                (&["a!", "b!"], &["a"], &["b!"], &[]),
            ] {
                db.execute("DELETE FROM instances", [])?;
                let release = made(old);
                releases::insert(db, &release)?;
                running.iter().try_for_each(|it| run(&release, it))?;
                let found = waits(db, &made(new))?;
                let found: Vec<_> = found
                    .iter()
                    .map(|(name, old)| (name.as_str(), old.name.as_str()))
                    .collect();
                assert_eq!(found, expected, "{old:?} {running:?} {new:?}");
            }

            db.execute("DELETE FROM instances", [])?;
            // Each may take its own time to stop, whatever the new release says.
            let mut release = made(&["a!", "c!"]);
            release.services[0].settings.stop_grace = Duration::from_secs(3600);
            releases::insert(db, &release)?;
            run(&release, "a")?;
            run(&release, "c")?;
            let found = waits(db, &made(&["b!"]))?;
            assert_eq!(found[&name("b")].grace, Duration::from_secs(3600));

            // Going back while one is still stopping.
            assert_eq!(waits(db, &release)?, BTreeMap::new());
            instances::retire(db, &release.app, [None, None])?;
            let found = waits(db, &release)?;
            let found: Vec<_> = found.keys().map(ServiceName::as_str).collect();
            assert_eq!(found, ["a", "c"]);
            Ok(())
        });
        write.await.unwrap();
    }
}
