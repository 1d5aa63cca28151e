//! Probes of the new release while it bakes, whatever its traffic is.

use std::collections::HashMap;
use std::net::SocketAddr;

use futures_util::future::join_all;

use crate::deploy::Result;
use crate::deploy::health::{Check, Unwell};
use crate::deploy::line::Line;
use crate::store::instances;
use crate::store::releases::Release;

/// So many failed probes of one instance in a row are no accident.
const IN_A_ROW: u32 = 3;

/// Probes each instance every `health.interval`; returns in one sentence what is wrong once one has
/// failed several times in a row.
pub async fn fail_in_a_row(line: &Line<'_>, release: &Release) -> Result<String> {
    let Some(web) = release.web() else {
        return std::future::pending().await;
    };
    let check = Check::of(line.agent, line.app, web);
    let mut failed: HashMap<String, u32> = HashMap::new();
    loop {
        tokio::time::sleep(web.settings.health.interval).await;
        let asks = targets(line, release).await?.into_iter();
        let asks = asks.map(async |(name, target)| (name, check.ask(target).await));
        for (name, asked) in join_all(asks).await {
            let Err(unwell) = asked else {
                failed.remove(&name);
                continue;
            };
            let times = failed.entry(name).or_default();
            *times += 1;
            if *times >= IN_A_ROW {
                return Ok(sentence(&unwell));
            }
        }
    }
}

fn sentence(unwell: &Unwell) -> String {
    format!("{IN_A_ROW} probes in a row failed after the switch: {unwell}")
}

/// The web instances and their addresses; an instance that was repaired may have a new one.
async fn targets(line: &Line<'_>, release: &Release) -> Result<Vec<(String, SocketAddr)>> {
    let of = release.id.clone();
    let read = line
        .agent
        .store
        .read(move |db| instances::of_release(db, &of));
    let web = release.web().map(|web| web.name.clone());
    let instances = read.await?.into_iter();
    let of_web = instances.filter(|it| Some(&it.service) == web.as_ref());
    Ok(of_web
        .filter_map(|it| Some((it.name, it.endpoint?)))
        .collect())
}
