//! An app's output: that of all its instances, followed across switches, and the last lines of those that
//! are gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Agent, is_meant, masks, process_of};
use crate::engine::EngineError;
use crate::engine::output::{Line, Stream, Wanted};
use crate::ids::AppName;
use crate::mask::Mask;
use crate::store::instances::{self, Instance};

mod kept;

use kept::{folder, kept};
pub use kept::{forget, keep, rename};

/// How many lines may wait for a slow reader.
const QUEUE: usize = 256;
/// How often a follower looks for new instances.
const LOOK: Duration = Duration::from_millis(500);
/// The most that is held in memory for one answer, in bytes.
const HELD: usize = 8 << 20;

/// Which lines of an app's output.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// The last so many.
    pub lines: usize,
    /// In seconds since 1970.
    pub since: Option<i64>,
    /// An instance's name or the end of it, such as `0` or `worker-0`; or its process.
    pub instance: Option<String>,
    /// A process, such as `web`.
    pub process: Option<String>,
    /// A text that the line contains.
    pub grep: Option<String>,
    pub follow: bool,
}

/// A line, and which instance wrote it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Said {
    #[serde(flatten)]
    pub line: Line,
    pub instance: String,
}

impl Query {
    fn wants_instance(&self, name: &str) -> bool {
        let process = self.process.as_deref();
        if process.is_some_and(|process| process_of(name) != process) {
            return false;
        }
        let Some(wanted) = &self.instance else {
            return true;
        };
        is_meant(name, wanted)
    }

    fn wants(&self, said: &Said) -> bool {
        let late = match self.since.and_then(time) {
            Some(since) => said.line.time.as_str() >= since.as_str(),
            None => true,
        };
        let found = self.grep.as_ref();
        late && found.is_none_or(|text| said.line.text.contains(text))
    }
}

fn time(seconds: i64) -> Option<String> {
    let time = time::OffsetDateTime::from_unix_timestamp(seconds).ok()?;
    let whole = time
        .format(&time::format_description::well_known::Rfc3339)
        .ok()?;
    // Sorts before every fraction of its second.
    Some(whole.trim_end_matches('Z').to_owned())
}

/// The last lines of a text, bounded in number and in bytes.
struct Last {
    lines: VecDeque<Said>,
    most: usize,
    bytes: usize,
    largest: usize,
}

impl Last {
    fn new(most: usize, largest: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            most,
            bytes: 0,
            largest,
        }
    }

    fn push(&mut self, said: Said) {
        self.bytes += said.line.text.len() + 128;
        self.lines.push_back(said);
        while self.lines.len() > self.most || self.bytes > self.largest {
            let Some(first) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= first.line.text.len() + 128;
        }
    }
}

/// The output that there is, oldest first, then with `follow` what is written from then on. An instance
/// that cannot be read is left out, and the agent's log says why.
pub fn output(agent: Arc<Agent>, app: AppName, query: Query) -> mpsc::Receiver<Said> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            () = send(&agent, &app, query, sender) => {}
            () = closed.closed() => {}
        }
    });
    receiver
}

async fn send(agent: &Arc<Agent>, app: &AppName, query: Query, sender: mpsc::Sender<Said>) {
    let begun = time(crate::store::now() / 1000);
    let now = live(agent, app).await;
    let mut mask = masks::of_app(agent, app).await;
    let past = past(agent, app, &query, &now, &mask).await;
    // The time up to which each instance has been read.
    let mut read = HashMap::new();
    for instance in &now {
        read.insert(instance.name.clone(), begun.clone());
    }
    for said in past {
        read.insert(said.instance.clone(), Some(said.line.time.clone()));
        if sender.send(said).await.is_err() {
            return;
        }
    }
    if !query.follow {
        return;
    }
    let mut readers = JoinSet::new();
    let mut being_read = HashSet::new();
    loop {
        for instance in live(agent, app).await {
            let name = instance.name.clone();
            if !query.wants_instance(&name) || !being_read.insert(name.clone()) {
                continue;
            }
            // One that came later is read from its beginning.
            let after = read.get(&name).cloned().flatten();
            if after.is_none() {
                mask = masks::of_app(agent, app).await;
            }
            let reader = follow(
                agent.clone(),
                instance,
                after,
                query.clone(),
                mask.clone(),
                sender.clone(),
            );
            readers.spawn(async move { (name, reader.await) });
        }
        tokio::time::sleep(LOOK).await;
        // Its container may not exist yet, or may be started again.
        while let Some(Ok((name, up_to))) = readers.try_join_next() {
            being_read.remove(&name);
            read.insert(name, up_to);
        }
    }
}

async fn live(agent: &Agent, app: &AppName) -> Vec<Instance> {
    let app = app.clone();
    let all = agent
        .store
        .read(move |db| instances::of_app(db, &app))
        .await;
    all.unwrap_or_default()
}

/// The lines that there are, of instances that are gone too.
async fn past(
    agent: &Agent,
    app: &AppName,
    query: &Query,
    now: &[Instance],
    mask: &Mask,
) -> VecDeque<Said> {
    let folder = folder(agent, app);
    let wanted = query.clone();
    let gone = tokio::task::spawn_blocking(move || kept(&folder, &wanted));
    let mut all: Vec<Said> = gone.await.unwrap_or_default();
    all.retain(|said| now.iter().all(|it| it.name != said.instance));
    all.iter_mut()
        .for_each(|said| said.line.text = mask.hide(std::mem::take(&mut said.line.text)));
    // Without a text to look for, the engine itself finds the last lines.
    let tail = query.grep.is_none().then_some(query.lines);
    let engine = Wanted {
        follow: false,
        since: query
            .since
            .map(|since| since.clamp(0, i32::MAX.into()) as i32),
        tail,
    };
    for instance in now.iter().filter(|it| query.wants_instance(&it.name)) {
        match last(agent, instance, engine, query, mask).await {
            Ok(lines) => all.extend(lines),
            Err(error) => {
                tracing::warn!(%app, %error, "some of its output cannot be read");
                all.push(unread(instance, &error));
            }
        }
    }
    all.sort_by(|a, b| a.line.time.cmp(&b.line.time));
    let mut last = Last::new(query.lines, HELD);
    all.into_iter().for_each(|said| last.push(said));
    last.lines
}

async fn last(
    agent: &Agent,
    instance: &Instance,
    wanted: Wanted,
    query: &Query,
    mask: &Mask,
) -> Result<VecDeque<Said>, EngineError> {
    let mut lines = agent.engine.output(&instance.ours(), wanted).await?;
    let mut last = Last::new(query.lines, HELD);
    while let Some(line) = lines.next().await {
        let said = Said {
            line: hidden(line?, mask),
            instance: instance.name.clone(),
        };
        if query.wants(&said) {
            last.push(said);
        }
    }
    Ok(last.lines)
}

/// In place of an instance's output.
fn unread(instance: &Instance, error: &EngineError) -> Said {
    let why = match error.to_string() {
        why if why.contains("does not support reading") => {
            "its output is not kept where Cutover could read it, but goes where `run.log` in deploy.toml says"
                .to_owned()
        }
        why => why,
    };
    Said {
        line: Line {
            time: time(crate::store::now() / 1000).unwrap_or_default() + "Z",
            stream: Stream::Stderr,
            text: format!("cutover: {why}"),
        },
        instance: instance.name.clone(),
    }
}

fn hidden(line: Line, mask: &Mask) -> Line {
    Line {
        text: mask.hide(line.text),
        ..line
    }
}

/// Sends what an instance says after the time `after` until its container stops; returns the time up
/// to which it has been read.
async fn follow(
    agent: Arc<Agent>,
    instance: Instance,
    mut after: Option<String>,
    query: Query,
    mask: Arc<Mask>,
    sender: mpsc::Sender<Said>,
) -> Option<String> {
    let wanted = Wanted {
        follow: true,
        since: after.as_deref().and_then(seconds),
        tail: None,
    };
    let Ok(mut lines) = agent.engine.output(&instance.ours(), wanted).await else {
        return after;
    };
    while let Some(Ok(line)) = lines.next().await {
        if after.as_ref().is_some_and(|after| line.time <= *after) {
            continue;
        }
        after = Some(line.time.clone());
        let said = Said {
            line: hidden(line, &mask),
            instance: instance.name.clone(),
        };
        if query.wants(&said) && sender.send(said).await.is_err() {
            break;
        }
    }
    after
}

/// The second in which a time is, since 1970.
fn seconds(time: &str) -> Option<i32> {
    let whole = format!("{}Z", time.get(..19)?);
    let format = &time::format_description::well_known::Rfc3339;
    let time = time::OffsetDateTime::parse(&whole, format).ok()?;
    time.unix_timestamp().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn said(time: &str, text: &str) -> Said {
        Said {
            line: Line {
                time: time.into(),
                stream: Stream::Stderr,
                text: text.into(),
            },
            instance: "cutover-hello-d-0".into(),
        }
    }

    #[test]
    fn a_second_has_its_text_and_back() {
        let text = time(1_700_000_000).unwrap();
        assert_eq!(text, "2023-11-14T22:13:20");
        assert_eq!(seconds(&format!("{text}.123456789Z")), Some(1_700_000_000));
        assert_eq!(seconds("now"), None);
    }

    #[test]
    fn an_instance_goes_by_how_its_name_ends() {
        let id = crate::ids::DeploymentId::new();
        let web = format!("cutover-my-worker-{id}-0");
        let worker = format!("cutover-my-worker-{id}-worker-0");
        let other = format!("cutover-my-worker-{id}-worker-10");
        for (wanted, found) in [
            ("0", vec![&web, &worker]),
            ("10", vec![&other]),
            ("worker-0", vec![&worker]),
            ("worker", vec![&worker, &other]),
            ("web-0", vec![&web]),
            ("web", vec![&web]),
            (other.as_str(), vec![&other]),
            ("", vec![]),
            ("orker-0", vec![]),
        ] {
            let query = Query {
                instance: Some(wanted.to_owned()),
                ..Query::default()
            };
            let all = [&web, &worker, &other].into_iter();
            let all: Vec<_> = all.filter(|name| query.wants_instance(name)).collect();
            assert_eq!(all, found, "{wanted}");
        }
    }

    #[test]
    fn what_is_held_is_bounded() {
        let mut last = Last::new(3, 1000);
        (0..9).for_each(|_| last.push(said("t", "x")));
        assert_eq!(last.lines.len(), 3);
        last.push(said("t", &"x".repeat(800)));
        assert_eq!(last.lines.len(), 1);
    }
}
