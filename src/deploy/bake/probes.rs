//! Probes of the new release while it bakes, whatever its traffic is.

use std::collections::HashMap;

use futures_util::future::join_all;

use crate::deploy::Result;
use crate::deploy::health::{Asker, Unwell};
use crate::deploy::line::Line;
use crate::ids::ServiceName;
use crate::store::instances;
use crate::store::releases::Release;

/// So many failed probes of one instance in a row are no accident.
const IN_A_ROW: u32 = 3;

/// Probes each instance every `health.interval`; returns in one sentence what is wrong once one has
/// failed several times in a row.
pub async fn fail_in_a_row(line: &Line<'_>, release: &Release) -> Result<String> {
    let askers = release.services.iter();
    let askers = askers.map(|it| (&it.name, Asker::of(line.agent, line.app, it)));
    let askers: HashMap<_, _> = askers.filter(|(_, asker)| !asker.is_silent()).collect();
    let services = release.services.iter();
    let asked = services.filter(|it| askers.contains_key(&it.name));
    let Some(interval) = asked.map(|it| it.settings.health.interval).min() else {
        return std::future::pending().await;
    };
    let mut failed: HashMap<String, u32> = HashMap::new();
    loop {
        tokio::time::sleep(interval).await;
        // Read each time: an instance that was repaired may have a new address.
        let of = release.id.clone();
        let instances = move |db: &_| instances::of_release(db, &of);
        let instances = line.agent.store.read(instances).await?.into_iter();
        let asks = instances.filter_map(|it| Some((askers.get(&it.service)?, it)));
        let asks = asks.map(async |(asker, it)| (asker.ask(&it).await, it));
        for (asked, instance) in join_all(asks).await {
            let unwell = match asked {
                Err(Unwell::Engine(_)) => continue,
                Err(unwell) => unwell,
                Ok(()) => {
                    failed.remove(&instance.name);
                    continue;
                }
            };
            let times = failed.entry(instance.name).or_default();
            *times += 1;
            if *times >= IN_A_ROW {
                return Ok(sentence(&instance.service, &unwell));
            }
        }
    }
}

fn sentence(service: &ServiceName, unwell: &Unwell) -> String {
    let of = match service.as_str() {
        "web" => String::new(),
        process => format!(" of the process `{process}`"),
    };
    format!("{IN_A_ROW} probes{of} in a row failed after the switch: {unwell}")
}
