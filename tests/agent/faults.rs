//! Each thing that an app needs is broken under load, and the app comes back by itself. The table says
//! what was broken, how long it took, how many requests failed, and what was said meanwhile; after each
//! the laws hold. `CUTOVER_FAULT_ROUNDS=10` breaks each ten times.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::NetworkDisconnectRequest;
use cutover::cli::setup::DEFAULT_HOST;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::crash::agrees;
use crate::database::remove_database;
use crate::processes::{SmallDisk, hello, kill, rewrite};
use crate::reconcile::{image, instance, network, remove, stop, take_address};
use crate::server::{APP, CUTOVER, HOST, SETTINGS, Server, free_address};
use crate::support::demo::http;
use crate::support::docker::docker;
use crate::support::wait::soon;

/// On a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(30);
/// The median of the long form, which runs alone, for each fault.
const GOAL: Duration = Duration::from_secs(2);
/// From so many rounds on, it is the long form.
const LONG: usize = 10;
/// How long an app must serve without a failure to have come back.
const QUIET: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Stop,
    Kill,
    Remove,
    Pause,
    Disconnect,
    /// Not through Docker, as an app ends by itself.
    Crash,
    /// While no agent runs: another container has its address.
    AddressTaken,
    /// While no agent runs and the app is stopped.
    NetworkRemoved,
    AgentKilled,
    ProxyKilled,
    /// The agent cannot reach Docker for a while.
    DockerAway,
    DiskFull,
    /// The agent may open 64 files, and strangers hold 400 connections.
    FewDescriptors,
    DatabaseLost,
}

impl Fault {
    const ALL: [Fault; 14] = [
        Fault::Stop,
        Fault::Kill,
        Fault::Remove,
        Fault::Pause,
        Fault::Disconnect,
        Fault::Crash,
        Fault::AddressTaken,
        Fault::NetworkRemoved,
        Fault::AgentKilled,
        Fault::ProxyKilled,
        Fault::DockerAway,
        Fault::DiskFull,
        Fault::FewDescriptors,
        Fault::DatabaseLost,
    ];

    /// Whether it leaves the app's own containers and the proxy alone: no request may fail.
    fn costs_nothing(self) -> bool {
        use Fault::*;
        matches!(
            self,
            AgentKilled | DockerAway | DiskFull | FewDescriptors | DatabaseLost
        )
    }
}

/// A server whose parts can be broken.
struct Bed {
    // Before the server, whose folder it is in.
    disk: SmallDisk,
    server: Server,
    docker: Docker,
    /// Where the agent looks for Docker.
    socket: PathBuf,
}

impl Bed {
    async fn make() -> Self {
        let server = Server::idle(SETTINGS).await;
        let disk = SmallDisk::under(&server);
        let socket = server.stage.folder.join("docker.sock");
        let host = format!("unix://{}", socket.display());
        rewrite(&server, DEFAULT_HOST, &host);
        // A proxy that is started again must be found where the load looks for it.
        let http = format!("http = \"{}\"", free_address());
        rewrite(&server, "http = \"127.0.0.1:0\"", &http);
        let bed = Self {
            disk,
            server,
            docker: docker().await,
            socket,
        };
        bed.reach_docker();
        bed
    }

    fn reach_docker(&self) {
        let real = DEFAULT_HOST.strip_prefix("unix://").unwrap();
        symlink(real, &self.socket).unwrap();
    }

    /// Breaks it, and does what a person or the service manager would do about it. Gives the moment
    /// from which there was somebody to repair it.
    async fn suffer(&mut self, fault: Fault, said: &mut Said) -> Instant {
        let mut since = Instant::now();
        let (name, endpoint) = instance(&self.server);
        let docker = self.docker.clone();
        match fault {
            Fault::Stop => stop(&docker, &name).await,
            Fault::Kill => docker.kill_container(&name, None).await.unwrap(),
            Fault::Remove => remove(&docker, &name).await,
            Fault::Pause => docker.pause_container(&name).await.unwrap(),
            Fault::Disconnect => {
                let request = NetworkDisconnectRequest {
                    container: name,
                    force: Some(true),
                };
                let network = network(&self.server);
                docker.disconnect_network(&network, request).await.unwrap();
            }
            Fault::Crash => {
                let found = docker.inspect_container(&name, None).await.unwrap();
                let pid = found.state.unwrap().pid.unwrap() as i32;
                kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
            }
            Fault::AddressTaken => {
                self.server.agent().kill().await.unwrap();
                stop(&docker, &name).await;
                let (network, image) = (network(&self.server), image(&docker, &name).await);
                let address = endpoint.split(':').next().unwrap();
                let thief = format!("thief-{}", std::process::id());
                take_address(&docker, &thief, &image, &network, address).await;
                since = Instant::now();
                self.server.serve().await;
                let elsewhere = soon(async || instance(&self.server).1 != endpoint).await;
                remove(&docker, &thief).await;
                assert!(elsewhere, "{}", self.server.log());
            }
            Fault::NetworkRemoved => {
                self.server.agent().kill().await.unwrap();
                stop(&docker, &name).await;
                let network = network(&self.server);
                docker.remove_network(&network).await.unwrap();
                since = Instant::now();
                self.server.serve().await;
            }
            Fault::AgentKilled => {
                self.server.agent().kill().await.unwrap();
                said.ask(&self.server);
                self.server.serve().await;
            }
            Fault::ProxyKilled => kill(hello(&self.server).await.unwrap().pid),
            Fault::DockerAway => {
                let times = || self.server.log().matches("Docker is not reachable").count();
                let before = times();
                fs::remove_file(&self.socket).unwrap();
                let away = async || times() > before;
                assert!(soon(away).await, "{}", self.server.log());
                said.ask(&self.server);
                self.reach_docker();
            }
            Fault::DiskFull => {
                self.disk.fill();
                said.ask(&self.server);
                fs::remove_file(self.disk.filler()).unwrap();
            }
            Fault::FewDescriptors => {
                self.server.agent().kill().await.unwrap();
                let limited = self.server.stage.folder.join("limited");
                let script = format!("#!/bin/sh\nulimit -n 64\nexec {CUTOVER} \"$@\"\n");
                fs::write(&limited, script).unwrap();
                fs::set_permissions(&limited, fs::Permissions::from_mode(0o755)).unwrap();
                self.server.serve_by(&limited).await;
                let address = self.server.agent().address;
                let mut strangers = Vec::new();
                for _ in 0..400 {
                    strangers.push(TcpStream::connect(address).await.unwrap());
                }
                said.ask(&self.server);
                self.server.go_live("limited").await;
                drop(strangers);
                self.server.agent().kill().await.unwrap();
                self.server.serve().await;
            }
            Fault::DatabaseLost => {
                self.server.agent().kill().await.unwrap();
                remove_database(&self.server);
                self.server.serve().await;
                said.ask(&self.server);
                self.server.go_live("found").await;
                // Nobody knows any more whose it is: a person takes it away.
                remove(&docker, &name).await;
            }
        }
        since
    }
}

/// What a person can read meanwhile.
#[derive(Default)]
struct Said(Option<String>);

impl Said {
    /// What `doctor` finds wrong; that the test's disk is small is meant only where it is full.
    fn ask(&mut self, server: &Server) {
        let doctor = server.cutover(&["doctor"]).output().unwrap();
        let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
        let is_small = |line: &str| line.contains("MiB free") && !line.contains("only 0 MiB");
        let mut lines = text.lines();
        let wrong = lines.find(|line| line.trim().starts_with('✘') && !is_small(line));
        self.0 = self.0.take().or(wrong.map(|line| line.trim().to_owned()));
    }
}

/// Asks one request after the other, beside the load.
struct Prober {
    over: watch::Sender<bool>,
    /// When it last failed, and since when it has not.
    last: watch::Receiver<Option<Instant>>,
    task: JoinHandle<Duration>,
}

impl Prober {
    fn start(address: std::net::SocketAddr) -> Self {
        let (over, ends) = watch::channel(false);
        let (failed, last) = watch::channel(None);
        let task = tokio::spawn(async move {
            let mut slowest = Duration::ZERO;
            while !*ends.borrow() {
                let asked = Instant::now();
                let answer = http::get(address, HOST, "/").await;
                slowest = slowest.max(asked.elapsed());
                if !answer.is_ok_and(|answer| answer.status == 200) {
                    failed.send_replace(Some(Instant::now()));
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            slowest
        });
        Self { over, last, task }
    }

    /// Waits until it has not failed for a while.
    async fn until_quiet(&self) -> bool {
        let since = Instant::now();
        soon(async || self.last.borrow().unwrap_or(since).elapsed() > QUIET).await
    }

    async fn end(self) -> Duration {
        self.over.send_replace(true);
        self.task.await.unwrap()
    }
}

/// Looks at the app's problems until it is told to stop; gives the first.
fn look(server: &Server) -> (watch::Sender<bool>, JoinHandle<Option<String>>) {
    let (over, ends) = watch::channel(false);
    let client = server.stage.client();
    let looking = tokio::spawn(async move {
        let mut said: Option<String> = None;
        while !*ends.borrow() {
            if let Ok(app) = client.get(&format!("/api/v1/apps/{APP}")).await {
                said = said.or(app["problems"][0].as_str().map(str::to_owned));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        said
    });
    (over, looking)
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_breaks_the_app_comes_back() {
    let rounds = std::env::var("CUTOVER_FAULT_ROUNDS").map_or(1, |n| n.parse().unwrap());
    let mut bed = Bed::make().await;
    bed.server.serve().await;
    bed.server.go_live("v0").await;
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    println!(
        "{:<15} {:>9} {:>13} {:>9}  said",
        "broken", "back", "failed", "slowest"
    );
    let faults = Fault::ALL.into_iter();
    for (number, fault) in faults
        .flat_map(|it| (0..rounds).map(move |_| it))
        .enumerate()
    {
        let name = format!("{fault:?}");
        let proxy = bed.server.agent().proxy;
        let load = bed.server.load();
        load.until_more(50).await;
        let (over, looking) = look(&bed.server);
        let (prober, mut said) = (Prober::start(proxy), Said::default());
        let since = bed.suffer(fault, &mut said).await;
        let quiet = prober.until_quiet().await;
        assert!(quiet, "{name}: it does not come back\n{}", bed.server.log());
        let back = back(&prober, since);
        times.entry(name.clone()).or_default().push(back);
        let slowest = prober.end().await;
        let report = load.stop().await;
        over.send_replace(true);
        let said = looking.await.unwrap().or(said.0);
        println!(
            "{name:<15} {:>6} ms {:>5} of {:>5} {:>6} ms  {}",
            back.as_millis(),
            report.failures.len(),
            report.requests(),
            slowest.as_millis(),
            said.as_deref().unwrap_or("-")
        );
        assert!(back < LIMIT, "{name}: {back:?}\n{}", bed.server.log());
        // L3: what the app did not cause, no client sees.
        if fault.costs_nothing() {
            assert!(report.failures.is_empty(), "{name}: {report}");
        }
        // L1 and L2: what is pushed now goes live.
        let version = format!("v{}", number + 1);
        bed.server.go_live(&version).await;
        assert_eq!(bed.server.version().await, version, "{name}");
        // L4 and L5.
        agrees(&bed.server, &name).await;
    }
    let metrics = bed.server.ask(::http::Request::get("/metrics"), "").await;
    assert!(metrics.text().contains("cutover_instances_down"));
    bed.server.stop().await;
    let mut slow = Vec::new();
    for (name, mut times) in times {
        times.sort();
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{name:<15} median {:>6} ms, longest {:>6} ms",
            median.as_millis(),
            longest.as_millis()
        );
        if median >= GOAL {
            slow.push(name);
        }
    }
    assert!(
        rounds < LONG || slow.is_empty(),
        "not within {GOAL:?}: {slow:?}"
    );
}

/// How long requests failed since then.
fn back(prober: &Prober, since: Instant) -> Duration {
    let last = *prober.last.borrow();
    last.map_or(Duration::ZERO, |last| last.saturating_duration_since(since))
}

/// What is said of repairs and crashes in `/metrics`.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_repaired_is_counted() {
    let docker = docker().await;
    let mut server = Server::start().await;
    server.go_live("v1").await;
    let metrics = async |line: &str| {
        let line = format!("{line}{{app=\"{APP}\"");
        let answer = server.ask(::http::Request::get("/metrics"), "").await;
        answer.text().contains(&line)
    };
    let (name, _) = instance(&server);
    stop(&docker, &name).await;
    assert!(soon(async || metrics("cutover_instances_repaired_total").await).await);
    let found = docker.inspect_container(&name, None).await.unwrap();
    let pid = found.state.unwrap().pid.unwrap() as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert!(soon(async || metrics("cutover_instance_crashes_total").await).await);
    server.stop().await;
}

/// A Docker Engine of the test's own, with a bridge of its own.
pub struct Dockerd {
    folder: PathBuf,
    bridge: String,
    /// This machine's on the bridge.
    pub address: Ipv4Addr,
    /// More arguments.
    pub more: Vec<String>,
    process: Option<std::process::Child>,
}

impl Dockerd {
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    pub fn make(folder: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let folder = folder.join("dockerd");
        fs::create_dir(&folder).unwrap();
        let number = NUMBER.fetch_add(1, Relaxed);
        let bridge = format!("cut{}-{number}", std::process::id());
        let id = std::process::id() + number * 4097;
        let (third, fourth) = (id / 64 % 256, id % 64 * 4 + 1);
        run("ip", &["link", "add", &bridge, "type", "bridge"]);
        let address = Ipv4Addr::new(172, 31, third as u8, fourth as u8);
        let with_mask = format!("{address}/30");
        run("ip", &["address", "add", &with_mask, "dev", &bridge]);
        run("ip", &["link", "set", &bridge, "up"]);
        Self {
            folder,
            bridge,
            address,
            more: Vec::new(),
            process: None,
        }
    }

    /// Starts it, again if it was killed, and waits until it answers.
    pub async fn start(&mut self) -> Docker {
        let below = |name: &str| self.folder.join(name).display().to_string();
        // Of those that were killed: a process that nobody has reaped yet would pass for running.
        for left in ["pid", "exec/containerd/containerd.pid"] {
            let _ = fs::remove_file(below(left));
        }
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(below("log"))
            .unwrap();
        let mut command = std::process::Command::new("dockerd");
        command
            .args(["--data-root", &below("root"), "--exec-root", &below("exec")])
            .args(["--pidfile", &below("pid"), "--host", &self.host()])
            .args(["--bridge", &self.bridge, "--storage-driver", "vfs"])
            .args(["--iptables=false", "--ip-masq=false"])
            .args(&self.more)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
        let connect = || Docker::connect_with_host(&self.host());
        let answers = async || match connect() {
            Ok(docker) => docker.ping().await.is_ok(),
            Err(_) => false,
        };
        let answers = soon(answers).await;
        let log = fs::read_to_string(below("log")).unwrap_or_default();
        let last = log.lines().rev().take(10).collect::<Vec<_>>().join("\n");
        assert!(answers, "{last}");
        connect().unwrap()
    }

    /// Ends it.
    pub fn signal(&mut self, signal: Signal) {
        if let Some(mut process) = self.process.take() {
            let pid = Pid::from_raw(process.id() as i32).unwrap();
            let _ = kill_process(pid, signal);
            let _ = process.wait();
        }
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        run("ip", &["link", "delete", &self.bridge]);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let status = std::process::Command::new(program).args(arguments).status();
    assert!(status.unwrap().success(), "{program} {arguments:?}");
}

/// Without live-restore a killed engine leaves every container stopped, `unless-stopped` or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_engine_costs_the_time_until_it_is_back() {
    let mut server = Server::idle(SETTINGS).await;
    let mut dockerd = Dockerd::make(&server.stage.folder);
    rewrite(&server, DEFAULT_HOST, &dockerd.host());
    let docker = dockerd.start().await;
    server.serve().await;
    server.go_live("v1").await;
    let proxy = server.agent().proxy;
    let rounds = std::env::var("CUTOVER_FAULT_ROUNDS").map_or(1, |n| n.parse().unwrap());
    for _ in 0..rounds {
        let prober = Prober::start(proxy);
        dockerd.signal(Signal::KILL);
        let away = async || {
            let app = server.api(&format!("/api/v1/apps/{APP}")).await;
            app["problems"]
                .to_string()
                .contains("Docker has not answered")
        };
        assert!(soon(away).await, "{}", server.log());
        assert!(prober.last.borrow().is_none(), "serving goes on");
        let begun = Instant::now();
        dockerd.start().await;
        assert!(prober.until_quiet().await, "{}", server.log());
        let back = back(&prober, begun);
        println!(
            "a killed engine: serves {} ms after its start",
            back.as_millis()
        );
        prober.end().await;
        assert_eq!(server.version().await, "v1");
    }
    server.go_live("v2").await;
    server.stop().await;
    let data = server.stage.data_dir.clone();
    let cleared = crate::support::demo::cleanup::remove_all_of(&docker, &data).await;
    cleared.unwrap();
}
