//! What the steps of all builds together may take of this machine. The BuildKit in the engine ignores the
//! limits that it is given, but runs every step below one control group of its own, which has them.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};

use super::Docker;
use super::facts::Groups;
use crate::engine::BuildLimits;

mod systemd;

const ROOT: &str = "/sys/fs/cgroup";
/// In microseconds.
const PERIOD: u64 = 100_000;
/// Of processors, and of processors and disks, where an app has 1024 and 100: whoever waits for an app goes first.
const SHARES: &str = "128";
const WEIGHT: &str = "12";
/// Whether a group gets only what nobody else wants, <https://docs.kernel.org/admin-guide/cgroup-v2.html>.
const IDLE: &str = "cpu.idle";
/// The file that says that the limits are of this agent's making, and so to be lifted when they are gone from
/// deploy.toml.
const MARKER: &str = "build-limits";
/// Where the engine puts containers unless it is told otherwise.
const USUAL: &str = "/docker";

/// The control group of all builds.
#[derive(Debug, Clone)]
pub(super) struct Group {
    /// The folder of what the kernel says, and is told, of processors.
    cpu: PathBuf,
    /// The same folder, but in the older kind of groups.
    used: PathBuf,
    is_two: bool,
}

impl Group {
    fn make(root: &Path, is_two: bool, name: &str) -> Result<Self, String> {
        let of = |controller: &str| match is_two {
            true => make(root, name),
            false => make(&root.join(controller), name),
        };
        Ok(Self {
            cpu: of("cpu")?,
            used: of("cpuacct")?,
            is_two,
        })
    }

    /// Gives builds only what nobody else wants. A kernel before 5.15 cannot.
    pub(super) fn be_last(&self) -> Result<(), String> {
        put(&self.cpu, IDLE, "1")
    }

    pub(super) fn is_last(&self) -> bool {
        let read = fs::read_to_string(self.cpu.join(IDLE));
        read.is_ok_and(|text| text.trim() == "1")
    }

    /// Gives builds their small share of the processors.
    pub(super) fn share(&self) -> Result<(), String> {
        // While it is set the kernel takes no share.
        let _ = put(&self.cpu, IDLE, "0");
        match self.is_two {
            true => put(&self.cpu, "cpu.weight", WEIGHT),
            false => put(&self.cpu, "cpu.shares", SHARES),
        }
    }

    /// How long processors have worked for builds.
    pub(super) fn used(&self) -> Option<Duration> {
        let read = |file: &str| fs::read_to_string(self.used.join(file)).ok();
        if !self.is_two {
            let text = read("cpuacct.usage")?;
            return Some(Duration::from_nanos(text.trim().parse().ok()?));
        }
        let text = read("cpu.stat")?;
        let of = |line: &str| line.strip_prefix("usage_usec ")?.parse().ok();
        text.lines().find_map(of).map(Duration::from_micros)
    }
}

/// What the kernel was told.
#[derive(Debug)]
pub(super) struct Written {
    /// `None`: nothing runs yet that says whether that was the right group.
    limits: Option<BuildLimits>,
    /// After which of the engine's starts.
    start: u64,
    group: Group,
}

impl Docker {
    /// Writes the limits; an error says why they do not hold.
    pub async fn limit_builds(&self, limits: BuildLimits) -> Result<(), String> {
        if !self.host.starts_with("unix://") {
            return Err("Docker does not run on this machine".to_owned());
        }
        let mut written = self.build_limits.lock().await;
        // Whoever stops the slice takes its limits with it.
        let is_there = |it: &Written| it.group.cpu.is_dir();
        let start = self.starts.load(Ordering::Relaxed);
        let holds = |it: &Written| it.limits == Some(limits) && it.start == start && is_there(it);
        if written.as_ref().is_some_and(holds) {
            return Ok(());
        }
        let unknown =
            |error: &dyn Display| format!("Docker does not say how it groups processes: {error}");
        let facts = self.facts().await.map_err(|error| unknown(&error))?;
        let is_two = match facts.groups {
            Groups::One => false,
            Groups::Two => true,
            Groups::Slice => {
                let marker = Path::new(&self.data_dir).join(MARKER);
                let none = limits == BuildLimits::default();
                if !none {
                    fs::write(&marker, "").map_err(|error| not_written(&marker, &error))?;
                }
                let wanted = (!none || marker.exists()).then_some(limits);
                systemd::apply(WEIGHT, wanted).await?;
                if none {
                    let _ = fs::remove_file(&marker);
                }
                let folder = Path::new(ROOT).join(systemd::SLICE);
                *written = Some(Written {
                    limits: Some(limits),
                    start,
                    group: Group {
                        cpu: folder.clone(),
                        used: folder,
                        is_two: true,
                    },
                });
                return Ok(());
            }
            Groups::Systemd => {
                return Err(
                    "Docker leaves its control groups to systemd, and builds can then be limited only from Docker 23 on \
                     and with cgroup v2: update Docker, move the server to cgroup v2, or set \
                     `\"exec-opts\": [\"native.cgroupdriver=cgroupfs\"]` in /etc/docker/daemon.json and restart \
                     Docker"
                        .to_owned(),
                );
            }
            Groups::None => return Err("Docker has no control groups, as without root".to_owned()),
        };
        let parent = self.parent_group().await.map_err(|error| unknown(&error))?;
        let is_known = parent.is_some();
        let parent = parent.unwrap_or_else(|| USUAL.to_owned());
        let marker = Path::new(&self.data_dir).join(MARKER);
        let write = move || {
            let none = limits == BuildLimits::default();
            // Whoever has limited builds by hand is left alone.
            let wanted = (!none || marker.exists()).then_some(limits);
            if !none {
                fs::write(&marker, "").map_err(|error| not_written(&marker, &error))?;
            }
            let group = write(Path::new(ROOT), is_two, &parent, wanted)?;
            if none {
                let _ = fs::remove_file(&marker);
            }
            Ok(group)
        };
        let done = tokio::task::spawn_blocking(write).await;
        let group = done.unwrap_or_else(|error| Err(error.to_string()))?;
        *written = Some(Written {
            limits: is_known.then_some(limits),
            start,
            group,
        });
        Ok(())
    }

    /// The control group of builds, if the agent can tell the kernel what they may take.
    pub(super) async fn build_group(&self) -> Option<Group> {
        let written = self.build_limits.lock().await;
        written.as_ref().map(|it| it.group.clone())
    }

    /// Whether deploy.toml limits builds.
    pub(super) async fn limits_builds(&self) -> bool {
        let written = self.build_limits.lock().await;
        let limits = written.as_ref().and_then(|it| it.limits);
        limits.is_some_and(|limits| limits != BuildLimits::default())
    }

    /// What BuildKit is told of where its steps run; `None`: it knows.
    pub(super) async fn builds_belong(&self) -> Option<String> {
        let facts = self.facts().await.ok()?;
        let is_told = self.host.starts_with("unix://") && facts.groups == Groups::Slice;
        is_told.then(|| systemd::parent(Path::new(ROOT))).flatten()
    }

    /// The control group that this engine's containers are in: that of one which runs, if one does.
    async fn parent_group(&self) -> crate::engine::Result<Option<String>> {
        let filters = self.ours();
        let options = ListContainersOptionsBuilder::new()
            .filters(&filters)
            .limit(1);
        let docker = self.client()?;
        let found = docker.list_containers(Some(options.build())).await;
        let found = found.map_err(self.failed("list its containers"))?;
        let Some(id) = found.into_iter().find_map(|it| it.id) else {
            return Ok(None);
        };
        let inspected = docker.inspect_container(&id, None::<InspectContainerOptions>);
        // It may have ended meanwhile.
        let pid = inspected.await.ok().and_then(|it| it.state?.pid);
        let group = pid.filter(|pid| *pid > 0).and_then(group_of);
        Ok(group.and_then(|group| Some(group.rsplit_once('/')?.0.to_owned())))
    }
}

/// The group of a process: where its memory is counted, or its only one.
fn group_of(pid: i64) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let of = |named: fn(&str) -> bool| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            named(controllers).then(|| path.to_owned())
        })
    };
    of(|named| named.split(',').any(|it| it == "memory")).or_else(|| of(str::is_empty))
}

/// `limits`: absent, only the order is written in which the machine is shared.
fn write(
    root: &Path,
    is_two: bool,
    parent: &str,
    limits: Option<BuildLimits>,
) -> Result<Group, String> {
    let name = format!("{}/buildkit", parent.trim_start_matches('/'));
    let group = Group::make(root, is_two, &name)?;
    if is_two {
        delegate(root, &group.cpu);
    }
    group.share()?;
    match is_two {
        true => write_two(&group.cpu, limits),
        false => write_one(root, &name, &group.cpu, limits),
    }?;
    Ok(group)
}

fn write_one(
    root: &Path,
    group: &str,
    cpu: &Path,
    limits: Option<BuildLimits>,
) -> Result<(), String> {
    let folder = |controller: &str| make(&root.join(controller), group);
    // Not every disk's scheduler has weights.
    if let Ok(blkio) = folder("blkio") {
        let _ = put(&blkio, "blkio.bfq.weight", WEIGHT);
        let _ = put(&blkio, "blkio.weight", WEIGHT);
    }
    let Some(limits) = limits else {
        return Ok(());
    };
    put(cpu, "cpu.cfs_period_us", &PERIOD.to_string())?;
    put(cpu, "cpu.cfs_quota_us", &quota(limits, "-1"))?;
    let memory = folder("memory")?;
    let limit = limits
        .memory
        .map_or("-1".to_owned(), |bytes| bytes.to_string());
    // With swap it is never less than without. Where swap is not counted, that file is missing.
    let _ = put(&memory, "memory.memsw.limit_in_bytes", "-1");
    put(&memory, "memory.limit_in_bytes", &limit)?;
    let _ = put(&memory, "memory.memsw.limit_in_bytes", &limit);
    Ok(())
}

/// Has the kernel count and limit what groups below a root take, down to this one.
fn delegate(root: &Path, folder: &Path) {
    let parents: Vec<PathBuf> = folder.ancestors().skip(1).map(Path::to_path_buf).collect();
    let within = parents.into_iter().take_while(|it| it.starts_with(root));
    // From the root down; what is on already stays on.
    for parent in within.collect::<Vec<_>>().into_iter().rev() {
        for controller in ["+memory", "+cpu", "+io"] {
            let _ = put(&parent, "cgroup.subtree_control", controller);
        }
    }
}

fn write_two(folder: &Path, limits: Option<BuildLimits>) -> Result<(), String> {
    let _ = put(folder, "io.weight", WEIGHT);
    let _ = put(folder, "io.bfq.weight", WEIGHT);
    let Some(limits) = limits else {
        return Ok(());
    };
    put(
        folder,
        "cpu.max",
        &format!("{} {PERIOD}", quota(limits, "max")),
    )?;
    let memory = limits
        .memory
        .map_or("max".to_owned(), |bytes| bytes.to_string());
    put(folder, "memory.max", &memory)?;
    let swap = limits.memory.map_or("max", |_| "0");
    let _ = put(folder, "memory.swap.max", swap);
    Ok(())
}

/// In microseconds of each period.
fn quota(limits: BuildLimits, none: &str) -> String {
    // The kernel takes no less than a millisecond.
    let quota = |cpus: f64| ((cpus * PERIOD as f64) as u64).max(1000);
    limits
        .cpus
        .map_or(none.to_owned(), |cpus| quota(cpus).to_string())
}

/// The group's folder below a root, made if it is missing. The engine goes on with one that is there.
fn make(root: &Path, group: &str) -> Result<PathBuf, String> {
    let folder = root.join(group);
    if !root.is_dir() {
        return Err(format!("there is no `{}` here", root.display()));
    }
    let made = fs::create_dir_all(&folder);
    made.map_err(|error| not_written(&folder, &error))?;
    Ok(folder)
}

fn put(folder: &Path, file: &str, value: &str) -> Result<(), String> {
    let path = folder.join(file);
    // Written in place: nothing makes such a file but the kernel.
    let open = fs::OpenOptions::new().write(true).open(&path);
    let written = open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| not_written(&path, &error))
}

fn not_written(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("`{shown}` cannot be written: to limit builds, run the agent as root")
        }
        io::ErrorKind::ResourceBusy => {
            format!(
                "`{shown}` cannot be written while builds have more than that: it is tried again before the next"
            )
        }
        _ => format!("`{shown}` cannot be written: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn both_kinds_of_groups_get_the_limits_in_their_own_words() {
        let root = tempfile::tempdir().unwrap();
        let group = root.path().join("docker/buildkit");
        fs::create_dir_all(&group).unwrap();
        for file in ["memory.max", "cpu.max", "cpu.weight"] {
            fs::write(group.join(file), "").unwrap();
        }
        let limits = BuildLimits {
            memory: Some(1 << 30),
            cpus: Some(1.5),
        };
        write(root.path(), true, "/docker", Some(limits)).unwrap();
        assert_eq!(of(&group, "memory.max"), "1073741824");
        assert_eq!(of(&group, "cpu.max"), "150000 100000");
        // A kernel without the controller has no such file.
        fs::remove_file(group.join("memory.max")).unwrap();
        let why = write(root.path(), true, "/docker", Some(limits)).unwrap_err();
        assert!(why.contains("memory.max"), "{why}");
        assert!(write(root.path(), false, "/docker", Some(limits)).is_err());
    }
}
