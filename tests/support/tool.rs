//! Programs of this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Says that a test has nothing to do. Where `CI` is set, every test has: there it fails.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "not to be skipped: {why}");
    eprintln!("skipped: {why}");
}

/// The program's path; where it is missing, the test is skipped.
pub fn find(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        skip(&format!("there is no `{name}` (apt-get install {package})"));
    }
    found
}

/// What it printed, on either channel. It must end by itself, within 30 s.
pub async fn output(command: &mut Command) -> (bool, String) {
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(30), run).await;
    let ended = ended.expect("it ends").unwrap();
    let text = [ended.stdout, ended.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (ended.status.success(), text)
}

/// An address that nothing listens on, and that no other test is given.
pub fn free_address() -> SocketAddr {
    // A loopback address of this process's own: ports are handed out anew as soon as they are free.
    let [.., a, b] = std::process::id().to_be_bytes();
    let own = Ipv4Addr::new(127, 1 + a % 250, b, 1);
    std::net::TcpListener::bind((own, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// A server that is killed when this is dropped.
pub async fn serving(command: &mut Command, address: SocketAddr) -> Child {
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_err() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "it does not listen"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    child
}
