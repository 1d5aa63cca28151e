//! A server for one test: the real binary on real Docker with a folder of its own.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use crate::support::demo::agent::Agent;
use crate::support::demo::http::Answer;
use crate::support::demo::load::{self, Load, Plan};
pub use crate::support::demo::sample::File;
pub use crate::support::demo::stage::APP;
use crate::support::demo::stage::Stage;
use crate::support::demo::{http, sample};
use cutover::cli::client::follow;
use cutover::cli::client::view::Deployment;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::counter::Counter;
use crate::support::docker::docker;
use crate::support::wait::soon;

/// The program under test.
pub const CUTOVER: &str = env!("CARGO_BIN_EXE_cutover");

/// The host that the app is served under.
pub const HOST: &str = "hello.test";

/// Quick where the defaults are patient.
pub const SETTINGS: &str = r#"
domains = ["hello.test"]
[apps.hello.health]
path = "/health"
interval = "50ms"
successes = 2
deadline = "15s"
[apps.hello.deploy]
drain = "10s"
bake = "0s"
keep_releases = 3
[apps.hello.run]
stop_grace = "2s"
"#;

/// A server: a stage with an agent on it. Dropped, everything that it made is removed.
pub struct Server {
    pub stage: Stage,
    agent: Option<Agent>,
    env: Vec<(String, String)>,
    _folder: TempDir,
}

impl Server {
    /// A server whose agent serves, with [`SETTINGS`].
    pub async fn start() -> Self {
        Self::with(SETTINGS).await
    }

    /// The same with other settings (see [`Stage::set`]).
    pub async fn with(settings: &str) -> Self {
        let mut server = Self::idle(settings).await;
        server.serve().await;
        server
    }

    /// A server whose agent has not been started.
    pub async fn idle(settings: &str) -> Self {
        docker().await;
        let folder = tempfile::Builder::new().prefix("cutover-test-").tempdir();
        let folder = folder.expect("a temporary folder can be made");
        let stage = Stage::set(folder.path(), "127.0.0.1:0", "127.0.0.1:0", settings);
        Self {
            stage: stage.unwrap_or_else(|error| panic!("{error}")),
            agent: None,
            env: Vec::new(),
            _folder: folder,
        }
    }

    /// More environment for every later start of the agent.
    pub fn set_env(&mut self, key: &str, value: &str) {
        self.env.retain(|(old, _)| old != key);
        self.env.push((key.to_owned(), value.to_owned()));
    }

    /// Starts the agent, again if it had ended.
    pub async fn serve(&mut self) {
        self.serve_by(Path::new(CUTOVER)).await;
    }

    /// The same by a program that runs the one under test.
    pub async fn serve_by(&mut self, program: &Path) {
        let env: Vec<_> = self
            .env
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let agent = self.stage.serve(program, &env).await;
        self.agent = Some(agent.unwrap_or_else(|error| panic!("{error}")));
    }

    /// The agent that runs.
    pub fn agent(&mut self) -> &mut Agent {
        self.agent.as_mut().expect("the agent was started")
    }

    fn running(&self) -> &Agent {
        self.agent.as_ref().expect("the agent was started")
    }

    /// Commits the sample app and delivers the push; gives the deployment's id.
    pub async fn push(&self, version: &str, behaviour: &str) -> String {
        self.push_files(&files(version, behaviour), version).await
    }

    /// The same with any files.
    pub async fn push_files(&self, files: &[File], message: &str) -> String {
        let pushed = self.stage.push(self.running(), files, message).await;
        pushed.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// Waits until a deployment has ended; gives it and its log.
    pub async fn ended(&self, id: &str) -> (Deployment, Vec<String>) {
        let mut lines = Vec::new();
        let client = self.stage.client();
        let follow = follow::to_the_end(&client, id, |line| lines.push(line.to_owned()));
        let followed = tokio::time::timeout(Duration::from_secs(300), follow).await;
        let ended = followed.unwrap_or_else(|_| panic!("`{id}` has not ended\n{}", self.log()));
        let ended = ended.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        (ended, lines)
    }

    /// Waits until a deployment's log says `text`.
    pub async fn until_log(&self, id: &str, text: &str) {
        let path = self.stage.data_dir.join(format!("logs/{id}.log"));
        let log = || std::fs::read_to_string(&path).unwrap_or_default();
        let said = soon(async || log().contains(text)).await;
        assert!(said, "no `{text}` in:\n{}\n{}", log(), self.log());
    }

    /// Pushes the sample app and waits until it is live.
    pub async fn go_live(&self, version: &str) -> Deployment {
        let id = self.push(version, "").await;
        let (deployment, log) = self.ended(&id).await;
        assert_eq!(
            deployment.state,
            "live",
            "{:?}\n{}\n{}",
            deployment.error,
            log.join("\n"),
            self.log()
        );
        deployment
    }

    /// GETs `path` of the app through the proxy.
    pub async fn get(&self, path: &str) -> Answer {
        let answer = http::get(self.running().proxy, HOST, path).await;
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// The version that serves now.
    pub async fn version(&self) -> String {
        let answer = self.get("/").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let version = answer.headers.get("x-version").expect("the app's version");
        version.to_str().expect("a version is a word").to_owned()
    }

    /// A request to the agent's own address.
    pub async fn ask(&self, request: ::http::request::Builder, body: impl Into<Vec<u8>>) -> Answer {
        let address = self.running().address;
        let request = request.header("host", address.to_string());
        let answer = http::send(address, request, body.into()).await;
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// GETs JSON over the Unix socket.
    pub async fn api(&self, path: &str) -> Value {
        let answer = self.stage.client().get(path).await;
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.log()))
    }

    /// The API's token.
    pub fn token(&self) -> String {
        let token = std::fs::read_to_string(self.stage.data_dir.join("token"));
        token.expect("the agent made a token").trim().to_owned()
    }

    /// Every kind of request, over and over, from now on.
    pub fn load(&self) -> Load {
        load::start(Plan::new(self.running().proxy, HOST))
    }

    /// Counts what the instances process, from now on.
    pub async fn counter(&self) -> Counter {
        Counter::start(&docker().await, &self.stage.data_dir).await
    }

    /// `cutover --config …` with these arguments.
    pub fn cutover(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(CUTOVER);
        command
            .arg("--config")
            .arg(&self.stage.config)
            .args(arguments)
            .env_remove("CUTOVER_TOKEN")
            .env_remove("CUTOVER_URL")
            .env_remove("CUTOVER_CONFIG");
        command
    }

    /// What agent and proxy logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stage.log).unwrap_or_default()
    }

    /// Stops the agent in order.
    pub async fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let status = agent.stop().await;
            let status = status.unwrap_or_else(|error| panic!("{error}"));
            assert!(status.success(), "{status}\n{}", self.log());
        }
    }
}

impl Agent {
    /// SIGHUP: the routes are to follow the configuration again.
    pub fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// kill -9, as a crash.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::KILL);
        self.child.wait().await
    }

    /// Waits until the agent ends by itself.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let agent = self.agent.take();
        // A runtime of its own, since this also runs while a test's own one unwinds.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().expect("a runtime");
                runtime.block_on(async {
                    if let Some(mut agent) = agent {
                        let _ = agent.kill().await;
                    }
                    if let Err(error) = self.stage.clear().await {
                        eprintln!("{error}");
                    }
                });
            });
        });
    }
}

/// An address for a program that has to be told one: the kernel gives nobody else a port below 32768.
pub fn free_address() -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let begin = 10_000 + (std::process::id() % 20_000) as u16 + TAKEN.fetch_add(1, Relaxed);
    let addresses = (begin..32_000).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let mut free = addresses.filter(|address| std::net::TcpListener::bind(address).is_ok());
    free.next().expect("a free port")
}

/// The files of the sample app.
pub fn files(version: &str, behaviour: &str) -> Vec<File> {
    sample::files(version, behaviour).unwrap_or_else(|error| panic!("{error}"))
}
