//! The sample app as a process of its own, which SIGTERM ends at once.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::OnceLock;

use crate::support::demo::sample;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

pub struct Hello {
    pub address: SocketAddr,
    child: Child,
    /// The posts that it has applied, to be had when it is gone.
    counted: JoinHandle<Vec<String>>,
}

impl Hello {
    pub async fn start(version: u64) -> Self {
        Self::start_at(version, 0).await
    }

    /// At a port that something else may have had before.
    pub async fn start_at(version: u64, port: u16) -> Self {
        let spawn = || {
            Command::new(program())
                .env("HELLO_VERSION", version.to_string())
                .env("PORT", port.to_string())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
        };
        let mut child = loop {
            match spawn() {
                Ok(child) => break child,
                // Another test forked while the file was being written.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                Err(error) => panic!("{error}"),
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().expect("it says its port");
        let port = first.rsplit(' ').next().unwrap().parse().unwrap();
        let counted = tokio::spawn(async move {
            let mut posts = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                posts.extend(line.strip_prefix("count ").map(str::to_owned));
            }
            posts
        });
        Self {
            address: (Ipv4Addr::LOCALHOST, port).into(),
            child,
            counted,
        }
    }

    /// SIGTERM; the posts that it had applied.
    pub async fn stop(mut self) -> Vec<String> {
        let pid = Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status: ExitStatus = self.child.wait().await.unwrap();
        assert!(!status.success(), "the signal ended it");
        self.counted.await.unwrap()
    }
}

/// The binary, written once.
fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let files = sample::files("", "").unwrap_or_else(|error| panic!("{error}"));
        let hello = files.into_iter().find(|file| file.path == "hello").unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        let (path, temp) = ("hello".to_owned(), format!("hello.{}", std::process::id()));
        let (path, temp) = (folder.join(path), folder.join(temp));
        let mut options = std::fs::File::options();
        let options = options.create(true).truncate(true).write(true).mode(0o755);
        let mut file = options.open(&temp).unwrap();
        std::io::Write::write_all(&mut file, &hello.bytes).unwrap();
        drop(file);
        std::fs::rename(&temp, &path).unwrap();
        path
    })
}
