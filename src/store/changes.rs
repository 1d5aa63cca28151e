//! What a release has other settings in than the one before it, where the two look alike: of the same commit
//! and the same image. Names only; values may be secret.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use serde_json::{Map, Value, json};

use super::releases::{self, Release};
use super::services::Service;
use super::{Result, former_secrets};

/// What differs from the last release before it that went live, such as `env LOG_LEVEL`, `secret API_KEY` and
/// `worker.memory`; empty if nothing does. `None` if there is no such release, or it is of another commit or
/// image.
pub fn of(db: &Connection, release: &Release) -> Result<Option<Vec<String>>> {
    let image = |it: &Release| it.main().map(|service| service.image_id.clone());
    let alike = |it: &Release| it.commit == release.commit && image(it) == image(release);
    let Some(before) = releases::live_before(db, release)?.filter(alike) else {
        return Ok(None);
    };
    let mut found = BTreeSet::new();
    let of_before: BTreeMap<_, _> = before.services.iter().map(|it| (&it.name, it)).collect();
    let of_now: BTreeMap<_, _> = release.services.iter().map(|it| (&it.name, it)).collect();
    let names: BTreeSet<_> = of_before.keys().chain(of_now.keys()).collect();
    for name in names {
        match (of_before.get(*name), of_now.get(*name)) {
            (Some(before), Some(now)) => {
                let prefix = match release.main().is_some_and(|main| main.name == **name) {
                    true => String::new(),
                    false => format!("{name}."),
                };
                settings(&mut found, &prefix, &values(before), &values(now));
            }
            _ => {
                found.insert(format!("process {name}"));
            }
        }
    }
    let versions = |of: &Release| -> Result<Option<Value>> {
        let text = former_secrets::versions(db, &of.id)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    };
    // Of releases from before this was recorded, nothing is known.
    if let (Some(before), Some(now)) = (versions(&before)?, versions(release)?) {
        each(&before, &now, |name| {
            found.insert(format!("secret {name}"));
        });
    }
    Ok(Some(found.into_iter().collect()))
}

fn values(service: &Service) -> Value {
    let mut all = serde_json::to_value(&service.settings).unwrap_or_default();
    all["replicas"] = json!(service.replicas);
    all["port"] = json!(service.port);
    all["protocol"] = json!(service.protocol == crate::config::Protocol::H2c);
    all
}

fn settings(found: &mut BTreeSet<String>, prefix: &str, before: &Value, now: &Value) {
    each(before, now, |key| {
        let (before, now) = (&before[key], &now[key]);
        // The same for every process.
        let mut inner = |what: &str| {
            each(before, now, |name| {
                found.insert(format!("{what}{name}"));
            })
        };
        match key {
            "env" | "kept" => inner("env "),
            "secrets" => inner("secret "),
            "container" => inner(prefix),
            key => {
                let key = key.trim_end_matches("_ms");
                found.insert(format!("{prefix}{key}"));
            }
        }
    });
}

/// The names that have another value in one than in the other.
fn each(one: &Value, other: &Value, mut differs: impl FnMut(&str)) {
    let none = Map::new();
    let (one, other) = (
        one.as_object().unwrap_or(&none),
        other.as_object().unwrap_or(&none),
    );
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    for name in names {
        if one.get(name) != other.get(name) {
            differs(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::Value as Given;
    use super::super::{Store, fixture};
    use super::*;

    #[tokio::test]
    async fn releases_of_one_image_differ_by_what_their_settings_name() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let write = store.write(|db| {
            let first = fixture::release(db, 1)?;
            assert_eq!(of(db, &first)?, None, "it is the first");
            releases::set_went_live(db, &first.id)?;
            let mut again = Release {
                id: crate::ids::ReleaseId::new(),
                ..first.clone()
            };
            releases::insert(db, &again)?;
            assert_eq!(of(db, &again)?, Some(vec![]), "it is the same again");
            let settings = &mut again.services[0].settings;
            let secret = "hunter2".to_owned();
            settings
                .env
                .insert("LEVEL".into(), Given::Text(secret.clone()));
            settings.kept.insert("KEPT".into(), secret);
            settings.secrets.insert("KEY".into(), None);
            settings.memory = Some(1);
            settings.stop_grace = Duration::from_secs(7);
            settings.container.init = true;
            again.services[0].replicas = 2;
            let expected = [
                "env KEPT",
                "env LEVEL",
                "init",
                "memory",
                "replicas",
                "secret KEY",
                "stop_grace",
            ];
            assert_eq!(of(db, &again)?.unwrap(), expected);
            let mut worker = again.services[0].clone();
            worker.name = "worker".parse().unwrap();
            again.services.push(worker);
            assert!(
                of(db, &again)?
                    .unwrap()
                    .contains(&"process worker".to_owned())
            );
            again.services[0].image_id = "sha256:2".into();
            assert_eq!(of(db, &again)?, None, "it is another image");
            Ok(())
        });
        write.await.unwrap();
    }
}
