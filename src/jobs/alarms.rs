//! Looks whether people should be told of the server's disks and certificates.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::certificates::names::{self, Name, Source};
use crate::config::{Config, NotifyEvent};
use crate::deploy::Agent;
use crate::deploy::space::Space;
use crate::store::alarms::{self, Alarm};
use crate::store::{Result, certificates, now};

const PERIOD: Duration = Duration::from_secs(60);
/// So many attempts to get a certificate may fail before anybody is told: DNS takes its time.
const FAILURES: u32 = 3;
const DAY: i64 = 24 * 3_600_000;
/// How long before its end people are told of a certificate that nobody renews, and of one that should
/// have been renewed.
const OWN: i64 = 14 * DAY;
const ORDERED: i64 = 7 * DAY;

pub async fn alarms(agent: Arc<Agent>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut full = BTreeSet::new();
    loop {
        ticks.tick().await;
        match look(&agent, &mut full).await {
            Ok(true) => agent.hub.changed(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "failed to record what is wrong with the server"),
        }
    }
}

async fn look(agent: &Agent, full: &mut BTreeSet<PathBuf>) -> Result<bool> {
    let config = agent.in_force().config.clone();
    let mut folders = vec![config.agent.data_dir.clone()];
    folders.extend(agent.engine.folders().await.unwrap_or_default());
    let states = agent.store.read(certificates::all).await?;
    let before = full.clone();
    let look = tokio::task::spawn_blocking(move || {
        let (disks, full) = disks(folders, &before);
        let (names, _) = names::all(&config, &states);
        let names = names.iter().filter_map(|name| certificate(&config, name));
        (disks.into_iter().chain(names).collect::<Vec<_>>(), full)
    });
    let Ok((all, now_full)) = look.await else {
        return Ok(false);
    };
    *full = now_full;
    agent.store.write(move |db| alarms::set(db, &all)).await
}

/// One alarm for each disk that is nearly full: folders on the same disk have the same space.
fn disks(folders: Vec<PathBuf>, before: &BTreeSet<PathBuf>) -> (Vec<Alarm>, BTreeSet<PathBuf>) {
    let (mut all, mut full) = (Vec::new(), BTreeSet::new());
    let mut seen = Vec::new();
    for folder in folders {
        let Ok(space) = Space::of(&folder) else {
            continue;
        };
        let is_full = match before.contains(&folder) {
            true => !space.is_enough(),
            false => space.is_little(),
        };
        if !is_full || seen.contains(&space) {
            continue;
        }
        seen.push(space);
        let shown = folder.display();
        all.push(Alarm {
            what: NotifyEvent::Disk,
            subject: shown.to_string(),
            app: None,
            title: "The server's disk is nearly full".to_owned(),
            text: format!(
                "{space} in {shown}: builds will fail; `docker system df` says what takes it"
            ),
            over: "The server's disk has space again".to_owned(),
        });
        full.insert(folder);
    }
    (all, full)
}

fn certificate(config: &Config, name: &Name) -> Option<Alarm> {
    let left = name.leaf.as_ref().map(|leaf| leaf.not_after - now());
    let (is_own, ends_soon) = match name.source {
        Source::File(_) => (true, left.is_some_and(|left| left < OWN)),
        _ => (false, left.is_some_and(|left| left < ORDERED)),
    };
    let fails = name.problem.is_some() && (name.due.is_none() || name.state.failures >= FAILURES);
    if !ends_soon && !fails {
        return None;
    }
    let days = left.map(|left| left / DAY);
    let text = match (&name.problem, days) {
        (Some(problem), _) => problem.clone(),
        (None, Some(days)) if is_own => format!("It ends in {days} days: replace its file"),
        (None, days) => format!("It ends in {} days and is being renewed", days.unwrap_or(0)),
    };
    let app = config
        .apps
        .values()
        .find(|app| app.domains.contains(&name.name));
    let host = &name.name;
    Some(Alarm {
        what: NotifyEvent::Certificate,
        subject: host.clone(),
        app: app.map(|app| app.name.clone()),
        title: match left {
            Some(left) if left > 0 => format!("The certificate of {host} ends"),
            Some(_) => format!("The certificate of {host} has ended"),
            None => format!("{host} has no certificate"),
        },
        text,
        over: format!("The certificate of {host} is good again"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::leaf::Leaf;
    use crate::config;

    fn title(source: Source, left: Option<i64>, failures: u32, due: Option<i64>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let app = "[apps.a]\nrepo = 'a.git'\nport = 80\ndomains = ['a.test']\n";
        std::fs::write(&path, app).unwrap();
        let config = config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let name = Name {
            name: "a.test".into(),
            source,
            leaf: left.map(|left| Leaf {
                names: vec!["a.test".into()],
                issuer: String::new(),
                not_before: 0,
                not_after: now() + left,
                id: None,
            }),
            state: certificates::State {
                failures,
                ..Default::default()
            },
            due,
            problem: (failures > 0 || due.is_none() && left.is_none()).then(|| "no".to_owned()),
        };
        let alarm = certificate(&config, &name)?;
        assert_eq!(alarm.app.unwrap().as_str(), "a");
        Some(alarm.title)
    }

    #[test]
    fn people_are_told_of_a_certificate_once_it_is_serious() {
        let file = || Source::File("x.pem".into());
        assert_eq!(title(file(), Some(15 * DAY), 0, None), None);
        assert_eq!(
            title(file(), Some(13 * DAY), 0, None).unwrap(),
            "The certificate of a.test ends"
        );
        assert_eq!(title(Source::Ordered, Some(20 * DAY), 2, Some(0)), None);
        assert!(title(Source::Ordered, Some(20 * DAY), 3, Some(0)).is_some());
        assert_eq!(title(Source::Ordered, None, 2, Some(0)), None);
        assert_eq!(
            title(Source::Nowhere, None, 0, None).unwrap(),
            "a.test has no certificate"
        );
        assert_eq!(
            title(Source::Ordered, Some(-1), 0, Some(0)).unwrap(),
            "The certificate of a.test has ended"
        );
    }
}
