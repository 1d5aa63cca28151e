//! What a build may take of the machine beside what is live on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::faults::Dockerd;
use crate::processes::rewrite;
use crate::server::{File, SETTINGS, Server, files};
use crate::support::tool;
use crate::support::wait::soon;
use cutover::cli::setup::DEFAULT_HOST;

/// The control group of builds below an engine's own, and the group of all of the engine's.
struct Group {
    name: String,
    is_two: bool,
}

impl Group {
    fn new() -> Self {
        Self {
            name: format!("cutover-limits-{}", std::process::id()),
            is_two: !Path::new("/sys/fs/cgroup/memory").exists(),
        }
    }

    fn folder(&self, controller: &str) -> PathBuf {
        let root = Path::new("/sys/fs/cgroup");
        let root = if self.is_two {
            root.into()
        } else {
            root.join(controller)
        };
        root.join(&self.name).join("buildkit")
    }

    fn number(&self, controller: &str, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(self.folder(controller).join(file)).unwrap();
        let lines = text.lines().filter_map(|line| match key {
            "" => Some(line),
            key => line.strip_prefix(key),
        });
        let mut numbers = lines.filter_map(|line| line.trim().parse().ok());
        numbers.next_back().unwrap_or_else(|| panic!("{text}"))
    }

    /// The most memory that builds have had; not every kernel says it.
    fn most(&self) -> u64 {
        match self.is_two {
            true if !self.folder("memory").join("memory.peak").exists() => 0,
            true => self.number("memory", "memory.peak", ""),
            false => self.number("memory", "memory.max_usage_in_bytes", ""),
        }
    }

    /// Whether builds get what nobody else wants; not every kernel can say it.
    fn is_last(&self) -> Option<bool> {
        let file = "cpu.idle";
        let can = self.folder("cpu").join(file).exists();
        can.then(|| self.number("cpu", file, "") == 1)
    }

    fn throttled(&self) -> u64 {
        self.number("cpu", "cpu.stat", "nr_throttled ")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let all = fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten();
        for root in all.map(|it| it.path()).chain(["/sys/fs/cgroup".into()]) {
            let group = root.join(&self.name);
            let _ = fs::remove_dir(group.join("buildkit"));
            let _ = fs::remove_dir(group);
        }
    }
}

pub fn app(version: &str, run: &str) -> Vec<File> {
    let mut all = files(version, "");
    all.retain(|it| it.path != "Dockerfile");
    let dockerfile = format!(
        "FROM scratch\nCOPY busybox /bin/sh\nCOPY busybox /bin/busybox\nRUN {run}\n\
         COPY hello version behaviour /\nSTOPSIGNAL SIGKILL\nENTRYPOINT [\"/hello\"]\n"
    );
    all.push(File::new("Dockerfile", dockerfile));
    all.push(File {
        mode: 0o100_755,
        ..File::new("busybox", fs::read("/bin/busybox").unwrap())
    });
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_takes_no_more_than_it_may_and_what_is_live_stays() {
    if !Path::new("/bin/busybox").exists() {
        return tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
    }
    let group = Group::new();
    let mut server = Server::idle(SETTINGS).await;
    let mut dockerd = Dockerd::make(&server.stage.folder);
    // Without the slash, Docker's containers are below its own group where that is not the root.
    let parent = format!("/{}", group.name);
    let options = [
        "--cgroup-parent",
        &parent,
        "--exec-opt",
        "native.cgroupdriver=cgroupfs",
    ];
    dockerd.more = options.map(str::to_owned).to_vec();
    rewrite(&server, DEFAULT_HOST, &dockerd.host());
    dockerd.start().await;
    server.serve().await;
    server.go_live("v1").await;
    assert_ne!(group.is_last(), Some(true), "nothing of ours is built now");

    rewrite(
        &server,
        "[docker]\n",
        "[docker]\nbuild_memory = \"64m\"\nbuild_cpus = 0.2\n",
    );
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let id = server
        .push_files(
            &app("v2", "busybox dd if=/dev/zero of=/dev/null bs=512M count=1"),
            "v2",
        )
        .await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "failed", "{log:#?}");
    let error = deployment.error.unwrap();
    assert_eq!(error.code, "build_failed");
    assert!(
        error.message.contains("exit code: 137"),
        "{error:?} {log:#?}"
    );
    assert!(group.most() <= 64 << 20, "{}", group.most());
    assert_eq!(server.version().await, "v1");

    let before = group.throttled();
    let burns = "busybox timeout 3 busybox yes >/dev/null || true";
    let id = server.push_files(&app("v3", burns), "v3").await;
    // Before it can have starved.
    assert!(soon(async || group.is_last() != Some(false)).await);
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert!(group.throttled() > before);
    assert_eq!(server.version().await, "v3");

    // Taken back with the keys.
    rewrite(&server, "build_memory = \"64m\"\nbuild_cpus = 0.2\n", "");
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    server.push("v4", "").await;
    let limit = match group.is_two {
        true => group.folder("memory").join("memory.max"),
        false => group.folder("memory").join("memory.limit_in_bytes"),
    };
    let lifted = async || fs::read_to_string(&limit).unwrap().trim() != (64 << 20).to_string();
    assert!(soon(lifted).await, "{}", server.log());
    server.stop().await;
    drop(dockerd);
    drop(group);
}

/// A small disk in memory.
struct Disk(PathBuf);

impl Disk {
    fn at(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"]);
        assert!(mount.arg(&folder).status().unwrap().success());
        Self(folder)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fills_the_disk_leaves_room_for_the_next() {
    if !Path::new("/bin/busybox").exists() {
        return tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
    }
    // The test's bridge has few addresses.
    let settings = format!("{SETTINGS}[apps.hello.build]\nnetwork = \"none\"\n");
    let mut server = Server::idle(&settings).await;
    let mut dockerd = Dockerd::make(&server.stage.folder);
    let disk = Disk::at(server.stage.folder.join("dockerd/root"));
    rewrite(&server, DEFAULT_HOST, &dockerd.host());
    rewrite(&server, "[docker]\n", "[docker]\nmin_free = \"8m\"\n");
    dockerd.start().await;
    server.serve().await;
    server.go_live("v1").await;
    // The engine keeps each layer whole, with those below it.
    let layer = |name| format!("busybox dd if=/dev/urandom of=/{name} bs=1M count=40");
    let layers = ["a", "b", "c"].map(layer).join("\nRUN ");
    let id = server.push_files(&app("v2", &layers), "v2").await;
    let (deployment, log) = server.ended(&id).await;
    let error = deployment.error.unwrap();
    assert_eq!(error.code, "build_failed", "{log:#?}");
    assert!(
        error.message.contains("the disk of Docker became full"),
        "{error:?}"
    );
    assert_eq!(server.version().await, "v1");
    server.go_live("v3").await;
    server.stop().await;
    drop(dockerd);
    drop(disk);
}
