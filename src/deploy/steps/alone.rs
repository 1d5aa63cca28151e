//! Processes with `overlap = false`, which never run beside those of another release.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;

use crate::deploy::Result;
use crate::ids::ServiceName;
use crate::store::instances;
use crate::store::releases::{self, Release};

/// The processes of a release that have to wait, each with the one that has to end first: the old one of the same
/// name or, of a process that is new, one that the release has no more, as it may be its own former name.
pub fn waits(db: &Connection, release: &Release) -> Result<BTreeMap<ServiceName, ServiceName>> {
    let (mut running, mut gone) = (BTreeSet::new(), None);
    let all = instances::of_app(db, &release.app)?.into_iter();
    for instance in all.filter(|it| it.release != release.id) {
        let name = instance.service;
        if release.service(&name).is_none()
            && let Some(old) = releases::get(db, &instance.release)?
            && old.service(&name).is_some_and(|it| !it.settings.overlap)
        {
            gone = Some(name.clone());
        }
        running.insert(name);
    }
    let alone = release.services.iter().filter(|it| !it.settings.overlap);
    let each = alone.filter_map(|it| {
        let same = running.get(&it.name).cloned();
        Some((it.name.clone(), same.or(gone.clone())?))
    });
    Ok(each.collect())
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
            for (old, new, expected) in [
                (&["a"][..], &["a"][..], &[][..]),
                (&["a"], &["a!"], &[("a", "a")]),
                (&["a!"], &["b!"], &[("b", "a")]),
                // It was not alone before either.
                (&["a"], &["b!"], &[]),
                (&["a!"], &["b"], &[]),
                (&["a!", "b!"], &["b!"], &[("b", "b")]),
            ] {
                db.execute("DELETE FROM instances", [])?;
                let release = made(old);
                releases::insert(db, &release)?;
                for service in &release.services {
                    let instance = Instance {
                        name: format!("cutover-hello-{}", service.name),
                        app: release.app.clone(),
                        release: release.id.clone(),
                        service: service.name.clone(),
                        deployment: release.deployment.clone(),
                        endpoint: None,
                        mark: None,
                        engine: None,
                    };
                    instances::insert(db, &instance)?;
                }
                let found = waits(db, &made(new))?;
                let found: Vec<_> = found
                    .iter()
                    .map(|(a, b)| (a.as_str(), b.as_str()))
                    .collect();
                assert_eq!(found, expected, "{old:?} {new:?}");
            }
            Ok(())
        });
        write.await.unwrap();
    }
}
