//! BuildKit's live status as readable log lines.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use bollard::moby::buildkit::v1::{StatusResponse, Vertex, VertexLog, VertexStatus};

use tokio::time::Instant;

use super::super::output::{Tail, readable};
use crate::join::{Join, Line};
use crate::printable::cut;

/// How many lines of the failing step's output are part of the error.
const TAIL: usize = 20;
/// How many characters of a line are part of the error.
const SHOWN: usize = 500;
/// How much of a very long line is logged, in bytes.
const LINE: usize = 8 << 10;

/// From how many seconds on the slowest step is named.
const LONG: f64 = 1.0;

/// How steps are called that only ask a registry, and how long it may take to answer: for the program that reads
/// the Dockerfile, and for a base image.
const ASKING: [(&str, Duration); 2] = [
    ("resolve image config for ", Duration::from_secs(20)),
    ("[internal] load metadata for ", Duration::from_secs(120)),
];

/// How the builder calls the writing of what says how an image was built.
const ATTESTING: &str = "exporting attestation manifest ";

/// What has been seen of a build so far.
#[derive(Default)]
pub(super) struct Progress {
    steps: HashMap<String, Step>,
    /// The steps that failed, by digest, in the order in which they were reported.
    failed: Vec<String>,
    tail: VecDeque<String>,
    attestation: Option<String>,
}

struct Step {
    number: usize,
    name: String,
    started: Option<f64>,
    /// How long it ran, in seconds.
    took: f64,
    /// Until when a registry has to answer.
    due: Option<Instant>,
    announced: bool,
    ended: bool,
    error: String,
    open: Join,
    transfers: HashSet<String>,
    tail: Tail,
}

impl Progress {
    /// Takes one status and returns the lines that it adds to the log.
    pub(super) fn take(&mut self, status: StatusResponse) -> Vec<String> {
        let mut lines = Vec::new();
        for vertex in &status.vertexes {
            self.begin(vertex, &mut lines);
        }
        for transfer in &status.statuses {
            self.transfer(transfer, &mut lines);
        }
        for log in &status.logs {
            self.output(log, &mut lines);
        }
        // Last, because a step's last output arrives in the message that reports its end.
        for vertex in &status.vertexes {
            self.end(vertex, &mut lines);
        }
        for line in &lines {
            keep(&mut self.tail, line.clone());
        }
        lines
    }

    /// The failing step's name, its error and its last lines.
    pub(super) fn failure(&mut self) -> Option<(String, String, Vec<String>)> {
        let step = self.steps.remove(self.failed.first()?)?;
        Some((step.name, step.error, step.tail.lines()))
    }

    /// Until when the next message has to come.
    pub(super) fn due(&self) -> Option<Instant> {
        self.steps.values().filter_map(|step| step.due).min()
    }

    /// A step that waits for a registry for too long, and what is wrong with it.
    pub(super) fn overdue(&self, now: Instant) -> Option<(String, String)> {
        let mut steps = self.steps.values();
        let step = steps.find(|step| step.due.is_some_and(|due| due <= now))?;
        let (_, limit) = ASKING
            .iter()
            .find(|(name, _)| step.name.starts_with(name))?;
        let why = format!("the registry has not answered for {} s", limit.as_secs());
        Some((step.name.clone(), why))
    }

    /// The images that steps began with, `name:tag@sha256:…`.
    pub(super) fn bases(&self) -> Vec<String> {
        let names = self.steps.values().map(|step| step.name.as_str());
        let of = |name: &str| {
            let (_, image) = name.split_once("FROM ")?;
            let image = image.split(' ').next()?;
            image.contains("@sha256:").then(|| image.to_owned())
        };
        let all: BTreeSet<_> = names.filter_map(of).collect();
        all.into_iter().collect()
    }

    /// The digest of the manifest that says how the image was built.
    pub(super) fn attestation(&self) -> Option<String> {
        self.attestation.clone()
    }

    /// Which step took longest, as a line of the log, if it is worth one.
    pub(super) fn slowest(&self) -> Option<String> {
        let ended = self.steps.values().filter(|step| step.ended);
        let step = ended.max_by(|a, b| a.took.total_cmp(&b.took))?;
        let Step { number, name, .. } = step;
        let worth = step.took >= LONG && self.steps.len() > 1;
        worth.then(|| format!("slowest step: #{number} {name} ({:.1}s)", step.took))
    }

    /// The last lines of all steps.
    pub(super) fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn step(&mut self, digest: &str) -> &mut Step {
        let number = self.steps.len() + 1;
        (self.steps.entry(digest.to_owned())).or_insert_with(|| Step {
            number,
            name: String::new(),
            started: None,
            took: 0.0,
            due: None,
            announced: false,
            ended: false,
            error: String::new(),
            open: Join::default(),
            transfers: HashSet::new(),
            tail: Tail::new(TAIL),
        })
    }

    fn begin(&mut self, vertex: &Vertex, lines: &mut Vec<String>) {
        let step = self.step(&vertex.digest);
        step.name = readable(vertex.name.as_bytes());
        if let Some(time) = &vertex.started {
            step.started = Some(time.seconds as f64 + f64::from(time.nanos) / 1e9);
        }
        if !step.announced && (step.started.is_some() || vertex.cached) {
            step.announced = true;
            let asks = ASKING.iter().find(|(name, _)| step.name.starts_with(name));
            step.due = asks.map(|(_, limit)| Instant::now() + *limit);
            lines.push(format!("#{} {}", step.number, step.name));
        }
    }

    fn transfer(&mut self, status: &VertexStatus, lines: &mut Vec<String>) {
        if let Some(digest) = status.id.strip_prefix(ATTESTING) {
            self.attestation = Some(digest.to_owned());
        }
        let step = self.step(&status.vertex);
        // Only a transfer is worth a line, and only once it is complete.
        if status.completed.is_some()
            && status.current > 0
            && step.transfers.insert(status.id.clone())
        {
            let size = size(status.current);
            lines.push(format!("#{} {} {size} done", step.number, status.id));
        }
    }

    fn output(&mut self, log: &VertexLog, lines: &mut Vec<String>) {
        let step = self.step(&log.vertex);
        step.tail.take(0, &log.msg);
        for line in step.open.take(&log.msg, LINE) {
            step.print(&line, lines);
        }
    }

    fn end(&mut self, vertex: &Vertex, lines: &mut Vec<String>) {
        let step = self.step(&vertex.digest);
        let Some(time) = vertex.completed.as_ref().filter(|_| !step.ended) else {
            return;
        };
        step.ended = true;
        step.due = None;
        if let Some(rest) = step.open.rest() {
            step.print(&rest, lines);
        }
        let completed = time.seconds as f64 + f64::from(time.nanos) / 1e9;
        step.took = completed - step.started.unwrap_or(completed);
        let (n, took) = (step.number, step.took);
        if !vertex.error.is_empty() {
            step.error = readable(vertex.error.as_bytes());
            lines.push(format!("#{n} ERROR: {}", step.error));
            // BuildKit cancels the steps that run beside the failed one: they are not the cause.
            let cancelled = step.error.ends_with("context canceled");
            // It builds on without a cache that it does not get.
            if !cancelled && !step.name.starts_with("importing cache") {
                self.failed.push(vertex.digest.clone());
            }
        } else if vertex.cached {
            lines.push(format!("#{n} CACHED"));
        } else {
            lines.push(format!("#{n} DONE {took:.1}s"));
        }
    }
}

impl Step {
    fn print(&mut self, line: &Line, lines: &mut Vec<String>) {
        let (text, note) = (readable(&line.head), line.note());
        lines.push(format!("#{} {text}{note}", self.number));
    }
}

fn keep(tail: &mut VecDeque<String>, line: String) {
    if tail.len() == TAIL {
        tail.pop_front();
    }
    // A line may be long, and this is only a summary.
    tail.push_back(cut(&line, SHOWN));
}

fn size(bytes: i64) -> String {
    match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{:.1}kB", bytes as f64 / 1e3),
        _ => format!("{:.1}MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vertex(digest: &str, started: i64, completed: Option<i64>) -> Vertex {
        let mut vertex = Vertex {
            digest: digest.to_owned(),
            name: format!("RUN {digest}"),
            ..Vertex::default()
        };
        vertex.started.get_or_insert_default().seconds = started;
        if let Some(completed) = completed {
            vertex.completed.get_or_insert_default().seconds = completed;
        }
        vertex
    }

    fn take(progress: &mut Progress, vertexes: &[Vertex], logs: &[(&str, &str)]) -> Vec<String> {
        let log = |(vertex, msg): &(&str, &str)| VertexLog {
            vertex: (*vertex).to_owned(),
            msg: msg.as_bytes().to_vec(),
            ..VertexLog::default()
        };
        progress.take(StatusResponse {
            vertexes: vertexes.to_vec(),
            logs: logs.iter().map(log).collect(),
            ..StatusResponse::default()
        })
    }

    #[test]
    fn steps_are_announced_once_and_end_once() {
        let mut progress = Progress::default();
        let waiting = Vertex {
            started: None,
            ..vertex("a", 0, None)
        };
        assert!(take(&mut progress, &[waiting], &[]).is_empty());
        let (begun, done) = (vertex("a", 1, None), vertex("a", 1, Some(3)));
        let lines = take(&mut progress, std::slice::from_ref(&begun), &[]);
        assert_eq!(lines, ["#1 RUN a"]);
        assert!(take(&mut progress, &[begun], &[]).is_empty());
        let lines = take(&mut progress, std::slice::from_ref(&done), &[]);
        assert_eq!(lines, ["#1 DONE 2.0s"]);
        assert!(take(&mut progress, &[done], &[]).is_empty());
        let cached = Vertex {
            cached: true,
            ..vertex("b", 3, Some(3))
        };
        assert_eq!(
            take(&mut progress, &[cached], &[]),
            ["#2 RUN b", "#2 CACHED"]
        );
        let slowest = progress.slowest();
        assert_eq!(slowest.as_deref(), Some("slowest step: #1 RUN a (2.0s)"));
        assert!(progress.failure().is_none());
    }

    #[test]
    fn a_registry_has_until_its_deadline_to_answer() {
        for (name, seconds) in [
            ("resolve image config for docker.io/docker/dockerfile:1", 20),
            (
                "[internal] load metadata for docker.io/library/node:22",
                120,
            ),
        ] {
            let mut progress = Progress::default();
            let named = |completed| Vertex {
                name: name.to_owned(),
                ..vertex("a", 1, completed)
            };
            take(&mut progress, &[named(None)], &[]);
            let due = progress.due().unwrap();
            let left = due.duration_since(Instant::now()).as_secs_f64().round();
            assert_eq!(left as u64, seconds);
            assert!(progress.overdue(Instant::now()).is_none());
            let (step, why) = progress.overdue(due).unwrap();
            assert!(
                step == name && why.contains(&format!("for {seconds} s")),
                "{why}"
            );
            take(&mut progress, &[named(Some(2))], &[]);
            assert!(progress.due().is_none());
        }
    }

    #[test]
    fn output_is_cut_into_lines_and_freed_of_what_moves_a_terminal() {
        let mut progress = Progress::default();
        let mut lines = take(&mut progress, &[vertex("a", 1, None)], &[("a", "on")]);
        lines.extend(take(&mut progress, &[], &[("a", "e\ntwo\r\n10%\r100%\n")]));
        lines.extend(take(
            &mut progress,
            &[],
            &[("a", "\u{1b}[1;31mred\u{1b}[0m\nrest")],
        ));
        lines.extend(take(&mut progress, &[vertex("a", 1, Some(1))], &[]));
        let expected = ["RUN a", "one", "two", "100%", "red", "rest", "DONE 0.0s"];
        assert_eq!(lines, expected.map(|line| format!("#1 {line}")));
        // A line that never ends does not accumulate in memory, and nothing in it lies at a seam.
        let long = "x".repeat(3 * LINE);
        let mut lines = take(&mut progress, &[vertex("b", 1, None)], &[("b", &long)]);
        lines.extend(take(&mut progress, &[], &[("b", "y\nz\n")]));
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[1].ends_with("x… (24577 bytes)"));
        assert_eq!(lines[2], "#2 z");
    }

    #[test]
    fn the_step_that_failed_first_is_the_reason_with_its_own_last_lines() {
        let mut progress = Progress::default();
        let begun = [vertex("a", 1, None), vertex("b", 1, None)];
        take(&mut progress, &begun, &[("b", "not this\n")]);
        let output: String = (0..30).map(|i| format!("{i}\n")).collect();
        take(&mut progress, &[], &[("a", &output)]);
        let failing = |digest, error: &str| Vertex {
            error: error.to_owned(),
            ..vertex(digest, 1, Some(2))
        };
        let beside = failing("b", "rpc error: context canceled");
        let lines = take(&mut progress, &[beside, failing("a", "exit code: 3")], &[]);
        assert!(
            lines.contains(&"#1 ERROR: exit code: 3".to_owned()),
            "{lines:?}"
        );
        let (step, message, tail) = progress.failure().unwrap();
        assert_eq!((step.as_str(), message.as_str()), ("RUN a", "exit code: 3"));
        assert_eq!(tail.len(), TAIL);
        assert_eq!(tail.last().map(String::as_str), Some("29"));
    }
}
