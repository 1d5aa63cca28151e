//! The agent and the proxy beside each other: who starts, stops and replaces whom, and what serves
//! although the other one cannot.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};

use crate::proxy::control::{Client, Hello, SOCKET};
use crate::server::{APP, HOST, SETTINGS, Server, free_address};
use crate::support::demo::http;
use crate::support::mix::Mix;
use crate::support::wait::soon;

pub async fn hello(server: &Server) -> Option<Hello> {
    let client = Client::new(server.stage.data_dir.join(SOCKET));
    client.hello().await.ok()
}

pub fn rewrite(server: &Server, from: &str, to: &str) {
    let text = fs::read_to_string(&server.stage.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&server.stage.config, text.replacen(from, to, 1)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_cannot_start_leaves_no_proxy() {
    let server = Server::idle("domains = ['hello.test']").await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    rewrite(
        &server,
        "listen = \"127.0.0.1:0\"",
        &format!("listen = \"{address}\""),
    );
    let output = server.cutover(&["serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(hello(&server).await, None, "an orphan");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_proxy_follows_the_file_and_drops_nothing() {
    let mut server = Server::start().await;
    server.go_live("1").await;
    let before = hello(&server).await.unwrap();
    let first = server.agent().proxy;
    let load = Mix::start(first, HOST);
    load.until_more().await;
    server.agent().kill().await.unwrap();
    let https = free_address();
    rewrite(
        &server,
        "\n[docker]",
        &format!("https = \"{https}\"\n[docker]"),
    );
    rewrite(
        &server,
        "http = \"127.0.0.1:0\"",
        &format!("http = \"{first}\""),
    );
    server.serve().await;
    let after = hello(&server).await.unwrap();
    assert_ne!(after.pid, before.pid, "{}", server.log());
    assert_eq!(after.settings.unwrap().https, Some(https));
    assert_eq!(server.agent().proxy, first);
    TcpStream::connect(https).unwrap();
    assert_eq!(server.version().await, "1");

    // The same file again: nothing is to be changed.
    server.agent().kill().await.unwrap();
    server.serve().await;
    assert_eq!(hello(&server).await.unwrap().pid, after.pid);

    // An address that somebody else has: said, and the proxy serves on as it is.
    server.agent().kill().await.unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = taken.local_addr().unwrap().to_string();
    rewrite(&server, &https.to_string(), &other);
    server.serve().await;
    assert_eq!(hello(&server).await.unwrap().pid, after.pid);
    assert!(
        server.log().contains("differs in `proxy.https`"),
        "{}",
        server.log()
    );
    let got = http::get(first, HOST, "/").await.unwrap();
    assert_eq!(got.status, 200);
    load.until_more().await;
    let mixed = load.stop().await;
    mixed.assert_whole();
}

/// A small disk under the data folder.
pub struct SmallDisk {
    folder: PathBuf,
    agent: Option<Child>,
}

impl SmallDisk {
    pub fn under(server: &Server) -> Self {
        let folder = server.stage.data_dir.clone();
        fs::create_dir_all(&folder).unwrap();
        let config = &server.stage.config;
        let text = fs::read_to_string(config).unwrap();
        let text = text.replace("[docker]\n", "[docker]\nmin_free = \"1m\"\n");
        fs::write(config, text).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=16m,mode=0700", "tmpfs"]);
        let mounted = mount.arg(&folder).status().unwrap();
        assert!(
            mounted.success(),
            "this test mounts a tmpfs, for which it must be root"
        );
        Self {
            folder,
            agent: None,
        }
    }

    pub fn filler(&self) -> PathBuf {
        self.folder.join("filler")
    }

    pub fn fill(&self) {
        let mut file = fs::File::create(self.filler()).unwrap();
        let zeros = [0u8; 4096];
        while file.write_all(&zeros).is_ok() {}
        let full = fs::write(self.folder.join("more"), zeros).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Starts an agent on the full disk, where the stage would wait for files that it cannot write.
    fn serve(&mut self, server: &Server) {
        let log = fs::File::options()
            .append(true)
            .open(&server.stage.log)
            .unwrap();
        let mut serve = server.cutover(&["serve"]);
        let serve = serve.stdout(log.try_clone().unwrap()).stderr(log);
        self.agent = Some(serve.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.kill();
        let socket = self.folder.join(SOCKET);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = tokio::runtime::Runtime::new().unwrap();
                let _ = runtime.block_on(Client::new(socket).stop());
            });
        });
        let _ = Command::new("umount").arg("-l").arg(&self.folder).status();
    }
}

/// As after a reboot: nothing runs, and nothing can be written.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_keeps_nothing_from_serving() {
    let mut server = Server::idle(SETTINGS).await;
    let mut disk = SmallDisk::under(&server);
    let address = free_address();
    let http = format!("http = \"{address}\"");
    rewrite(&server, "http = \"127.0.0.1:0\"", &http);
    server.serve().await;
    server.go_live("1").await;
    for graceful in [false, true] {
        disk.fill();
        let proxy = hello(&server).await.unwrap().pid;
        match graceful {
            true => server.stop().await,
            false => {
                server.agent().kill().await.unwrap();
                kill(proxy);
            }
        }
        assert!(soon(async || hello(&server).await.is_none()).await);
        disk.serve(&server);
        let serves = async || {
            http::get(address, HOST, "/")
                .await
                .is_ok_and(|it| it.status == 200)
        };
        assert!(soon(serves).await, "graceful: {graceful}\n{}", server.log());
        let doctor = server.cutover(&["doctor"]).output().unwrap();
        let doctor = String::from_utf8(doctor.stdout).unwrap();
        assert!(doctor.contains("✘ only 0 MiB free"), "{doctor}");
        let told = soon(async || {
            let ready = server.stage.client().look("/readyz").await;
            ready.is_ok_and(|(status, told)| status == 503 && told["database"] != "ok")
        });
        assert!(told.await, "graceful: {graceful}\n{}", server.log());

        // With space again everything goes on by itself.
        fs::remove_file(disk.filler()).unwrap();
        let ready = async || server.stage.client().get("/readyz").await.is_ok();
        assert!(soon(ready).await, "graceful: {graceful}\n{}", server.log());
        let deploy = server
            .cutover(&["deploy", APP, "--follow"])
            .output()
            .unwrap();
        assert!(deploy.status.success(), "{deploy:?}\n{}", server.log());
        let said = server.log().matches("failed to recover; retrying").count();
        assert!(said <= 2, "once for each agent: {}", server.log());
        disk.kill();
        server.serve().await;
    }
}

/// Neither its socket nor its access log can be made, as with a folder that is out of inodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_can_make_neither_socket_nor_log_serves_and_makes_them_later() {
    let mut server = Server::idle(SETTINGS).await;
    let address = free_address();
    let logs = server.stage.folder.join("logs");
    let http = format!(
        "http = \"{address}\"\naccess_log = \"{}/access.log\"",
        logs.display()
    );
    rewrite(&server, "http = \"127.0.0.1:0\"", &http);
    server.serve().await;
    server.go_live("1").await;
    server.stop().await;
    assert!(soon(async || hello(&server).await.is_none()).await);

    let socket = server.stage.data_dir.join(SOCKET);
    fs::create_dir_all(socket.join("in the way")).unwrap();
    let log = fs::File::create(server.stage.folder.join("proxy.log")).unwrap();
    let mut proxy = server.cutover(&["proxy"]);
    let proxy = proxy.stdout(log.try_clone().unwrap()).stderr(log);
    let mut proxy = proxy.spawn().unwrap();
    let serves = async || {
        http::get(address, HOST, "/")
            .await
            .is_ok_and(|it| it.status == 200)
    };
    assert!(soon(serves).await);
    // The log's own thread says that it cannot open the file.
    let said = || fs::read_to_string(server.stage.folder.join("proxy.log")).unwrap();
    for what in [
        "failed to create the control socket",
        "failed to open the access log",
    ] {
        assert!(soon(async || said().contains(what)).await, "{}", said());
    }

    fs::remove_dir_all(&socket).unwrap();
    fs::create_dir(&logs).unwrap();
    assert!(soon(async || hello(&server).await.is_some()).await);
    let logged = async || {
        assert!(serves().await);
        fs::read_to_string(logs.join("access.log"))
            .is_ok_and(|text| text.contains("\"status\":200"))
    };
    assert!(soon(logged).await);
    server.serve().await;
    assert_eq!(
        hello(&server).await.unwrap().pid,
        proxy.id(),
        "it is adopted"
    );
    server.stop().await;
    proxy.wait().unwrap();
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// A TLS 1.2 greeting for a server whose name is an address, which no client may send.
fn strange_hello() -> Vec<u8> {
    let vector = |width: usize, bytes: &[u8]| {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - width..], bytes].concat()
    };
    let name = [&[0][..], &vector(2, b"192.0.2.1")].concat();
    let extension = |kind: u8, bytes: &[u8]| [&[0, kind][..], &vector(2, bytes)].concat();
    let extensions = [
        extension(0, &vector(2, &name)),
        extension(10, &[0, 2, 0, 29]),
        extension(13, &[0, 2, 4, 3]),
    ];
    let hello = [
        &[3, 3][..],
        &[7; 32],
        &[0],
        &[0, 2, 0xc0, 0x2b],
        &[1, 0],
        &vector(2, &extensions.concat()),
    ];
    let handshake = [&[1][..], &vector(3, &hello.concat())].concat();
    [&[22, 3, 1][..], &vector(2, &handshake)].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_fills_the_proxys_log_and_a_full_one_is_set_aside() {
    let mut server = Server::idle("domains = ['hello.test']").await;
    let https = free_address();
    rewrite(
        &server,
        "\n[docker]",
        &format!("https = \"{https}\"\n[docker]"),
    );
    server.serve().await;
    let log = server.stage.data_dir.join("proxy.log");
    let lines = || fs::read_to_string(&log).unwrap().lines().count();
    let before = lines();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(https).unwrap();
        stream.write_all(&strange_hello()).unwrap();
        // It is refused once it is read.
        let _ = stream.read(&mut [0; 64]);
    }
    let said = lines() - before;
    assert!(
        said <= 1,
        "{said} lines: {}",
        fs::read_to_string(&log).unwrap()
    );

    let mut file = fs::File::options().append(true).open(&log).unwrap();
    file.write_all(&vec![b'\n'; 17 << 20]).unwrap();
    let aside = server.stage.data_dir.join("proxy.log.1");
    assert!(soon(async || aside.exists()).await);
    server.stop().await;
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("the proxy is shutting down"), "{text}");
}
