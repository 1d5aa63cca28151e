//! How often each post was processed, counted at the instances themselves.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, EventsOptionsBuilder, ListContainersOptionsBuilder,
};
use futures_util::StreamExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The sample app logs every post before it answers; this reads along at every instance.
pub struct Counter {
    seen: Arc<Seen>,
    events: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    times: Mutex<HashMap<String, u32>>,
    changed: watch::Sender<u64>,
}

impl Counter {
    /// Counts at the instances that run, and at each that starts.
    pub async fn start(docker: &Docker, data_dir: &Path) -> Self {
        let label = format!("cutover.data-dir={}", data_dir.display());
        let seen = Arc::new(Seen::default());
        let filters = HashMap::from([
            ("label".to_owned(), vec![label.clone()]),
            ("event".to_owned(), vec!["start".to_owned()]),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let mut events = docker.events(Some(options));
        let events = tokio::spawn({
            let (docker, seen) = (docker.clone(), seen.clone());
            async move {
                while let Some(Ok(event)) = events.next().await {
                    let id = event.actor.and_then(|actor| actor.id);
                    read_along(&docker, &seen, id.unwrap_or_default());
                }
            }
        });
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptionsBuilder::new()
            .filters(&filters)
            .build();
        let running = docker.list_containers(Some(options)).await;
        for container in running.expect("Docker lists containers") {
            read_along(docker, &seen, container.id.unwrap_or_default());
        }
        Self { seen, events }
    }

    /// Panics unless each of `posted` was processed exactly once.
    pub async fn each_once(self, posted: &[String]) {
        let all = || {
            let times = self.seen.times.lock();
            posted.iter().all(|id| times.contains_key(id))
        };
        let mut changed = self.seen.changed.subscribe();
        let wait = async { while !all() && changed.changed().await.is_ok() {} };
        // What is missing after that was never processed.
        let _ = tokio::time::timeout(Duration::from_secs(10), wait).await;
        self.events.abort();
        let times = self.seen.times.lock();
        let wrong: Vec<_> = posted
            .iter()
            .map(|id| (id, times.get(id).copied().unwrap_or(0)))
            .filter(|(_, times)| *times != 1)
            .collect();
        assert!(
            wrong.is_empty(),
            "of {} posts these were not processed once: {wrong:?}",
            posted.len()
        );
    }
}

fn read_along(docker: &Docker, seen: &Arc<Seen>, id: String) {
    let (docker, seen) = (docker.clone(), seen.clone());
    tokio::spawn(async move {
        let options = AttachContainerOptionsBuilder::new()
            .stdout(true)
            .logs(true)
            .stream(true);
        let attached = docker.attach_container(&id, Some(options.build())).await;
        let Ok(mut attached) = attached else { return };
        let mut text = String::new();
        while let Some(Ok(piece)) = attached.output.next().await {
            let LogOutput::StdOut { message } = piece else {
                continue;
            };
            text.push_str(&String::from_utf8_lossy(&message));
            while let Some((line, rest)) = text.split_once('\n') {
                if let Some(id) = line.strip_prefix("count ") {
                    let mut times = seen.times.lock();
                    *times.entry(id.to_owned()).or_default() += 1;
                }
                text = rest.to_owned();
            }
            seen.changed.send_modify(|changes| *changes += 1);
        }
    });
}
