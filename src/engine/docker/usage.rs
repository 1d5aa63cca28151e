//! What a container uses.

use std::time::Duration;

use bollard::query_parameters::StatsOptionsBuilder;
use futures_util::StreamExt;

use super::{Docker, Result, status_code};
use crate::engine::Used;

impl Docker {
    /// `None` if there is no such container, or it does not run.
    pub async fn used(&self, name: &str) -> Result<Option<Used>> {
        let options = StatsOptionsBuilder::new().stream(false).one_shot(true);
        let client = self.client()?;
        let mut stats = client.stats(name, Some(options.build()));
        let stats = match stats.next().await {
            None => return Ok(None),
            Some(Err(error)) if status_code(&error) == Some(404) => return Ok(None),
            Some(stats) => stats.map_err(self.failed(format!("measure `{name}`")))?,
        };
        let cpu = stats.cpu_stats.and_then(|it| it.cpu_usage?.total_usage);
        let memory = stats.memory_stats.and_then(|it| {
            // What the kernel only keeps because nobody needs the space; called so by cgroups 2 and 1.
            let cached = ["inactive_file", "total_inactive_file"];
            let all = it.stats.unwrap_or_default();
            let cached = cached.iter().find_map(|key| all.get(*key).copied());
            Some(it.usage?.saturating_sub(cached.unwrap_or_default()))
        });
        let used = cpu.filter(|cpu| *cpu > 0).zip(memory);
        Ok(used.map(|(cpu, memory)| Used {
            cpu: Duration::from_nanos(cpu),
            memory,
        }))
    }
}
