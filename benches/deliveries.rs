//! Signed deliveries a second: `cutover serve` beside Debian's `webhook` package.
//!
//!     cargo bench --profile dist --bench deliveries [-- --rounds 5 --deliveries 20000]
//!
//! Both check the signature of the same 7 KiB GitHub pushes. Cutover answers once the delivery and its
//! deployment are on disk; `webhook` starts `/bin/true` and stores nothing. Every body is another one,
//! signed before the clock starts. Rounds go round-robin; the table shows medians. The processor time is
//! that of a delivery with all that it leads to.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use cutover::cli;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[path = "../tests/support/demo.rs"]
#[allow(dead_code)]
mod demo;
use cutover::proxy;
use demo::forge;

const SECRET: &str = "a secret of thirty-two characters";
const BODY: usize = 7 << 10;
const CONNECTIONS: [usize; 2] = [64, 1000];
/// Of proc(5), on every machine that Docker runs on.
const TICKS_A_SECOND: f64 = 100.0;

struct Server {
    name: &'static str,
    path: &'static str,
    address: String,
    status: &'static str,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Server {
    /// The processor time that it and what it has started took so far, in seconds.
    fn processor_time(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("it runs");
        let after_name = stat.rsplit(") ").next().expect("what proc(5) says");
        // utime, stime, cutime and cstime, the 14th to 17th field, of which the name was the 2nd.
        let ticks = after_name.split(' ').skip(11).take(4);
        let ticks: u64 = ticks.map(|t| t.parse::<u64>().expect("a number")).sum();
        ticks as f64 / TICKS_A_SECOND
    }

    /// Waits until it has nothing left to do, which is not the next one's to pay for: `webhook` goes on
    /// starting programs for seconds. Gives the processor time so far.
    fn at_rest(&self) -> f64 {
        let mut before = self.processor_time();
        for _ in 0..120 {
            std::thread::sleep(Duration::from_millis(500));
            let now = self.processor_time();
            if now - before < 0.02 {
                return now;
            }
            before = now;
        }
        panic!("{} does not come to rest", self.name);
    }
}

/// What one round came to.
struct Round {
    a_second: f64,
    p50: f64,
    p99: f64,
    processor_us: f64,
}

fn argument(name: &str, default: usize) -> usize {
    let words: Vec<String> = std::env::args().collect();
    let at = words.iter().position(|word| word == name);
    at.and_then(|at| words.get(at + 1)?.parse().ok())
        .unwrap_or(default)
}

fn main() {
    let (rounds, count) = (argument("--rounds", 5), argument("--deliveries", 20_000));
    // In the build's folder: where temporary files go there may be no disk behind them.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let mut servers = vec![cutover(folder.path())];
    servers.extend(webhook(folder.path()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for server in &servers {
        let pushes = pushes(server, 500);
        runtime.block_on(round(server, pushes, 16));
    }
    println!("{rounds} rounds of {count} deliveries, each of {BODY} bytes\n");
    println!(
        "| | connections | accepted a second | p50 ms | p99 ms | processor us |\n\
         |---|---|---|---|---|---|"
    );
    for connections in CONNECTIONS {
        let mut measured: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
        for _ in 0..rounds {
            for (server, measured) in servers.iter().zip(&mut measured) {
                let pushes = pushes(server, count);
                measured.push(runtime.block_on(round(server, pushes, connections)));
            }
        }
        for (server, rounds) in servers.iter().zip(&measured) {
            let middle = |of: fn(&Round) -> f64| {
                let mut all: Vec<f64> = rounds.iter().map(of).collect();
                all.sort_by(f64::total_cmp);
                all[all.len() / 2]
            };
            println!(
                "| {} | {connections} | {:.0} | {:.1} | {:.1} | {:.0} |",
                server.name,
                middle(|round| round.a_second),
                middle(|round| round.p50),
                middle(|round| round.p99),
                middle(|round| round.processor_us),
            );
        }
    }
}

/// Whole requests, no two of which have the same body.
fn pushes(server: &Server, count: usize) -> Vec<Vec<u8>> {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random).expect("random bytes");
    let zeros = "0".repeat(40);
    let mut payload = forge::payload("refs/heads/main", &zeros, &"1".repeat(40), "Say hello");
    payload["filler"] = "".into();
    let short = payload.to_string().len();
    payload["filler"] = "x".repeat(BODY - short).into();
    let template = payload.to_string();
    let request = |number: usize| {
        let commit = format!("{}{number:016x}", hex::encode(random));
        let body = template.replace(&"1".repeat(40), &commit);
        let signature = forge::signature(SECRET, body.as_bytes());
        format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: GitHub-Hookshot/bench\r\n\
             Content-Type: application/json\r\nX-GitHub-Event: push\r\n\
             X-GitHub-Delivery: {commit}\r\nX-Hub-Signature-256: {signature}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            server.path,
            server.address,
            body.len()
        )
        .into_bytes()
    };
    (0..count).map(request).collect()
}

/// Sends all, each connection one after the other.
async fn round(server: &Server, pushes: Vec<Vec<u8>>, connections: usize) -> Round {
    let (pushes, next) = (Arc::new(pushes), Arc::new(AtomicUsize::new(0)));
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(&server.address)
            .await
            .expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        streams.push(stream);
    }
    let (begun, used) = (Instant::now(), server.processor_time());
    let clients: Vec<_> = (streams.into_iter())
        .map(|stream| {
            let client = client(stream, pushes.clone(), next.clone(), server.status);
            tokio::spawn(client)
        })
        .collect();
    let mut took = Vec::new();
    for client in clients {
        took.extend(client.await.expect("a delivery was not accepted"));
    }
    let all = begun.elapsed().as_secs_f64();
    let used = server.at_rest() - used;
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    Round {
        a_second: took.len() as f64 / all,
        p50: at(0.5),
        p99: at(0.99),
        processor_us: used * 1e6 / took.len() as f64,
    }
}

async fn client(
    mut stream: TcpStream,
    pushes: Arc<Vec<Vec<u8>>>,
    next: Arc<AtomicUsize>,
    status: &str,
) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    while let Some(push) = pushes.get(next.fetch_add(1, Relaxed)) {
        let begun = Instant::now();
        stream.write_all(push).await.expect("it reads");
        answer.clear();
        while !is_whole(&answer) {
            let read = stream.read_buf(&mut answer).await.expect("it answers");
            assert!(read > 0, "it hung up");
        }
        took.push(begun.elapsed());
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with(status), "{text}");
    }
    took
}

fn is_whole(answer: &[u8]) -> bool {
    let text = std::str::from_utf8(answer).unwrap_or_default();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    body.len() >= length.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn cutover(folder: &Path) -> Server {
    let address = free();
    git2::Repository::init_bare(folder.join("hello.git")).expect("a repository");
    std::fs::write(folder.join("hello.secret"), SECRET).expect("the folder can be written");
    let text = format!(
        "[agent]\nlisten = '{address}'\ndata_dir = 'data'\n[proxy]\nhttp = '127.0.0.1:0'\n\
         [apps.hello]\nrepo = 'hello.git'\nport = 8080\n\
         [apps.hello.webhook]\nsecrets = [{{ file = 'hello.secret' }}]\n"
    );
    std::fs::write(folder.join("deploy.toml"), text).expect("the folder can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
    command
        .arg("--config")
        .arg(folder.join("deploy.toml"))
        .arg("serve")
        .env("RUST_LOG", "error");
    let child = start(command, &address);
    Server {
        name: "Cutover, each on disk",
        path: "/hooks/hello",
        address,
        status: "HTTP/1.1 202",
        child,
    }
}

fn webhook(folder: &Path) -> Option<Server> {
    if Command::new("webhook").arg("-version").output().is_err() {
        eprintln!("`webhook` is not installed: apt-get install webhook");
        return None;
    }
    let address = free();
    let hooks = serde_json::json!([{
        "id": "hello",
        "execute-command": "/bin/true",
        "trigger-rule": { "match": {
            "type": "payload-hmac-sha256",
            "secret": SECRET,
            "parameter": { "source": "header", "name": "X-Hub-Signature-256" },
        }},
    }]);
    let path = folder.join("hooks.json");
    std::fs::write(&path, hooks.to_string()).expect("the folder can be written");
    let (ip, port) = address.split_once(':').expect("an address");
    let mut command = Command::new("webhook");
    command.args(["-ip", ip, "-port", port, "-hooks"]).arg(path);
    let child = start(command, &address);
    Some(Server {
        name: "webhook, /bin/true",
        path: "/hooks/hello",
        address,
        status: "HTTP/1.1 200",
        child,
    })
}

fn start(mut command: Command, address: &str) -> Child {
    let silent = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = silent.spawn().expect("it can be started");
    for _ in 0..1000 {
        if std::net::TcpStream::connect(address).is_ok() {
            return child;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill().and_then(|()| child.wait());
    panic!("nothing listens on {address}");
}

fn free() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").to_string()
}
