//! Starts dockerd where there is no systemd: once, and it keeps running when Cutover ends.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::{Error, START, answers, install};

const LOG: &str = "/var/log/cutover-dockerd.log";

/// If one of these files is left over and its number now belongs to another process, dockerd refuses to
/// start or waits for a containerd that does not exist.
const PID_FILES: [(&str, &str); 2] = [
    ("/var/run/docker.pid", "dockerd"),
    ("/var/run/docker/containerd/containerd.pid", "containerd"),
];

/// Starts dockerd, or adopts one that is starting, and waits until it answers at `host`.
pub async fn start(host: &str, say: &impl Fn(&str)) -> Result<(), Error> {
    let [(docker_pid, _), _] = PID_FILES;
    if runs(docker_pid, "dockerd") {
        say("waiting for dockerd, which is already starting");
        return wait_until_it_answers(host, None).await;
    }
    for (file, program) in PID_FILES {
        if Path::new(file).exists() && !runs(file, program) {
            std::fs::remove_file(file).map_err(|error| {
                Error::usage(format!("failed to remove the stale file `{file}`")).because(&error)
            })?;
        }
    }
    say(&format!("starting dockerd; its log is `{LOG}`"));
    let child = spawn().map_err(|error| Error::usage("failed to start dockerd").because(&error))?;
    wait_until_it_answers(host, Some(child)).await
}

fn spawn() -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(LOG)?;
    let program = install::find("dockerd").unwrap_or("dockerd".into());
    Command::new(program)
        .env("PATH", install::path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // Its own process group, because Ctrl-C in the terminal is meant only for Cutover.
        .process_group(0)
        .spawn()
}

/// Waits for an answer at `host`. Gives up when `child` ends or [`START`] has passed.
pub async fn wait_until_it_answers(host: &str, mut child: Option<Child>) -> Result<(), Error> {
    let deadline = Instant::now() + START;
    while Instant::now() < deadline {
        if answers(host).await {
            return Ok(());
        }
        if let Some(child) = &mut child
            && let Ok(Some(status)) = child.try_wait()
        {
            return Err(
                Error::usage(format!("dockerd exited ({status}):\n  {}", last_lines()))
                    .hint(format!("the full log is in `{LOG}`")),
            );
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(Error::usage(format!(
        "Docker did not answer at `{host}` within {} s of being started",
        START.as_secs()
    ))
    .hint(format!(
        "see `{LOG}`, or `journalctl -u docker` with systemd"
    )))
}

/// Whether the process in `pid_file` is alive and runs `program`.
fn runs(pid_file: &str, program: &str) -> bool {
    let Ok(pid) = std::fs::read_to_string(pid_file) else {
        return false;
    };
    let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.trim()));
    name.is_ok_and(|name| name.trim() == program)
}

fn last_lines() -> String {
    let bytes = std::fs::read(LOG).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n  ")
}
