//! Fetching over real http, https and ssh servers on the loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cutover::config::{Repo, Secret, Source};
use cutover::source::{Commit, Mirror, Revision, SourceError};
use git2::{Repository, Signature};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::tls::Tls;
use crate::support::tool;

pub const TOKEN: &str = "s3cret-token";

/// A folder with a bare repository of one commit.
fn origin() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let git = Repository::init_bare(folder.path().join("origin.git")).unwrap();
    let who = Signature::now("Ann", "ann@example.com").unwrap();
    let tree = git.treebuilder(None).unwrap().write().unwrap();
    let tree = git.find_tree(tree).unwrap();
    let tip = (git.commit(Some("refs/heads/main"), &who, &who, "one", &tree, &[])).unwrap();
    (folder, tip.to_string())
}

fn fetch(folder: &Path, repo: Repo, access: Source) -> Result<Commit, SourceError> {
    fetch_until(folder, repo, access, &CancellationToken::new())
}

fn fetch_until(
    folder: &Path,
    repo: Repo,
    access: Source,
    cancel: &CancellationToken,
) -> Result<Commit, SourceError> {
    let mirror = Mirror::new(folder.join("mirror.git"), repo, access);
    let deadline = Instant::now() + Duration::from_secs(40);
    let revision = Revision::Branch("main".into());
    let fetch = || mirror.fetch(&revision, &|_| {}, cancel, deadline);
    // It blocks, which async code may not.
    tokio::task::block_in_place(fetch)
}

// --- http ---

#[derive(Clone)]
struct Server {
    root: Arc<PathBuf>,
    token: Option<&'static str>,
}

/// The two requests of git's smart protocol, answered by git itself.
async fn serve(State(server): State<Server>, request: Request) -> Response {
    let expected = server.token.map(|token| {
        use base64::Engine as _;
        let pair =
            base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        format!("Basic {pair}")
    });
    let given = request.headers().get(header::AUTHORIZATION).cloned();
    if expected.is_some() && given.and_then(|g| Some(g.to_str().ok()?.to_owned())) != expected {
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic realm=\"git\"")],
        )
            .into_response();
    }
    let path = request.uri().path().to_owned();
    let (repo, rest) = path[1..].split_once(".git/").unwrap_or_default();
    let folder = server.root.join(format!("{repo}.git"));
    if !folder.exists() || !matches!(rest, "info/refs" | "git-upload-pack") {
        return StatusCode::NOT_FOUND.into_response();
    }
    let advertise = rest == "info/refs";
    let body: Bytes = axum::body::to_bytes(request.into_body(), 1 << 20)
        .await
        .unwrap();
    let (kind, body) = upload_pack(&folder, &body, advertise);
    ([(header::CONTENT_TYPE, kind)], Body::from(body)).into_response()
}

/// git's own answer and its content type.
fn upload_pack(folder: &Path, question: &[u8], advertise: bool) -> (String, Vec<u8>) {
    let mut git = Command::new("git");
    git.args(["-c", "safe.directory=*", "upload-pack", "--stateless-rpc"]);
    if advertise {
        git.arg("--advertise-refs");
    }
    let mut git = git
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(question).unwrap();
    let mut output = git.wait_with_output().unwrap().stdout;
    if folder.ends_with("no-shallow.git") && advertise {
        // As a server that does not know of it.
        let at = output
            .windows(9)
            .position(|nine| nine == b" shallow ")
            .unwrap();
        output[at + 1] = b'X';
    }
    let (kind, prefix) = match advertise {
        true => ("advertisement", "001e# service=git-upload-pack\n0000"),
        false => ("result", ""),
    };
    let kind = format!("application/x-git-upload-pack-{kind}");
    (kind, [prefix.as_bytes(), &output].concat())
}

pub async fn http(folder: &Path, token: Option<&'static str>) -> SocketAddr {
    http_at(folder, token, "127.0.0.1:0").await
}

/// git's smart protocol for the repositories in a folder.
pub fn repositories(folder: &Path, token: Option<&'static str>) -> Router {
    let root = Arc::new(folder.to_owned());
    Router::new()
        .fallback(serve)
        .with_state(Server { root, token })
}

async fn http_at(folder: &Path, token: Option<&'static str>, listen: &str) -> SocketAddr {
    let app = repositories(folder, token);
    let listener = tokio::net::TcpListener::bind(listen).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

pub fn with_token(folder: &Path, token: &str) -> Source {
    let path = folder.join("token");
    std::fs::write(&path, format!("{token}\n")).unwrap();
    Source {
        token: Some(Secret::File(path)),
        ..Source::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_with_a_token_and_without() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let (folder, tip) = origin();
    let path = folder.path();
    let open = http(path, None).await;
    let url = |at: SocketAddr| Repo::Http(format!("http://{at}/origin.git"));
    assert_eq!(
        fetch(path, url(open), Source::default())
            .unwrap()
            .id
            .as_str(),
        tip
    );

    let closed = http(path, Some(TOKEN)).await;
    let found = fetch(path, url(closed), with_token(path, TOKEN));
    assert_eq!(found.unwrap().id.as_str(), tip);
    for access in [
        Source::default(),
        with_token(path, "wrong"),
        with_token(path, ""),
    ] {
        let error = fetch(path, url(closed), access).unwrap_err();
        assert!(matches!(error, SourceError::Refused { .. }), "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    let gone = Repo::Http(format!("http://{open}/gone.git"));
    let error = fetch(path, gone, Source::default()).unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_fails_is_not_taken_for_one_without_the_commit() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let (folder, _) = origin();
    let allow = ["config", "uploadpack.allowAnySHA1InWant", "true"];
    let mut git = Command::new("git");
    git.arg("-C").arg(folder.path().join("origin.git"));
    assert!(git.args(allow).status().unwrap().success());
    let root = Arc::new(folder.path().to_owned());
    let app = Router::new().fallback(move |request: Request| {
        let server = Server {
            root: root.clone(),
            token: None,
        };
        async move {
            match *request.method() {
                axum::http::Method::GET => serve(State(server), request).await,
                _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let healthy = http(folder.path(), None).await;
    let error = |at: SocketAddr| {
        let repo = Repo::Http(format!("http://{at}/origin.git"));
        let mirror = Mirror::new(folder.path().join("mirror.git"), repo, Source::default());
        let other = Revision::Commit("0123456789abcdef0123456789abcdef01234567".parse().unwrap());
        let deadline = Instant::now() + Duration::from_secs(40);
        let fetch = || mirror.fetch(&other, &|_| {}, &CancellationToken::new(), deadline);
        tokio::task::block_in_place(fetch).unwrap_err()
    };
    let (failed, absent) = (error(address), error(healthy));
    assert!(matches!(failed, SourceError::BrokeOff { .. }), "{failed}");
    assert!(
        matches!(absent, SourceError::NoSuchCommit { .. }),
        "{absent}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_does_not_follow_a_redirect_to_another_server() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let (folder, _) = origin();
    let path = folder.path();
    let elsewhere = http(path, Some(TOKEN)).await;
    let app = Router::new().fallback(move |request: Request| async move {
        let query = request.uri().path_and_query().unwrap().to_string();
        // Another name for the loopback is another server.
        let to = format!("http://localhost:{}{query}", elsewhere.port());
        (StatusCode::FOUND, [(header::LOCATION, to)])
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let repo = Repo::Http(format!("http://{address}/origin.git"));
    let error = fetch(path, repo, with_token(path, TOKEN)).unwrap_err();
    assert!(error.to_string().contains("a server other than"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_the_first_request_moves_the_repository() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let (folder, tip) = origin();
    let path = folder.path();
    let real = http(path, Some(TOKEN)).await;
    // As a forge does with an address that lacks `.git`, and with `http` in place of `https`.
    let app = Router::new().fallback(move |request: Request| async move {
        let query = request.uri().path_and_query().unwrap().to_string();
        let query = query.replace("/old/", "/origin.git/");
        let to = format!("http://{real}{query}");
        (StatusCode::MOVED_PERMANENTLY, [(header::LOCATION, to)])
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let repo = |name: &str| Repo::Http(format!("http://{address}/{name}"));
    let found = fetch(path, repo("old/"), with_token(path, TOKEN)).unwrap();
    assert_eq!(found.id.as_str(), tip);
    let error = fetch(path, repo("old"), with_token(path, "wrong")).unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_reached_by_its_ipv6_address() {
    if tool::find("git", "git").is_none() || TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let (folder, tip) = origin();
    let path = folder.path();
    let address = http_at(path, None, "[::1]:0").await;
    let repo = Repo::Http(format!("http://{address}/origin.git"));
    let found = fetch(path, repo, Source::default()).unwrap();
    assert_eq!(found.id.as_str(), tip);
}

/// Gives every connection this answer and then closes it.
fn canned(answer: &'static str) -> Repo {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = head(&mut stream);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    Repo::Http(format!("http://{address}/origin.git"))
}

/// Reads a request's head, or what `ssh` begins with.
fn head(stream: &mut std::net::TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    let is_whole = |head: &[u8]| head.ends_with(b"\r\n\r\n") || head.starts_with(b"SSH-");
    while !is_whole(&head) && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

#[test]
fn a_server_that_is_none_of_gits_is_named_as_what_it_is() {
    let (folder, _) = origin();
    let path = folder.path();
    for (answer, code, said) in [
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-type: text/html\r\ncontent-length: 9\r\n\r\n<p>No</p>",
            "source_refused",
            "`403 Forbidden`",
        ),
        (
            "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\n\r\nThe token lacks a scope.\nOr so.",
            "source_refused",
            "The token lacks a scope.",
        ),
        (
            "HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n",
            "source_limited",
            "`429 Too Many Requests`",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n",
            "source_unreachable",
            "dumb",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 0\r\n\r\n",
            "source_unreachable",
            "text/html",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-advertisement\r\n\
             content-encoding: gzip\r\ncontent-length: 0\r\n\r\n",
            "source_unreachable",
            "gzip",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-git-upload-pack-advertisement\r\n\
             content-length: 100\r\n\r\n001e# service=git-upload-pack\n0000",
            "source_unreachable",
            "breaks off",
        ),
        (
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Negotiate\r\ncontent-length: 0\r\n\r\n",
            "source_refused",
            "method that is not supported",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /users/sign_in\r\ncontent-length: 0\r\n\r\n",
            "source_unreachable",
            "login",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /x/info/refs\r\ncontent-length: 0\r\n\r\n",
            "source_unreachable",
            "times",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "source_unreachable", ""),
        ("", "source_unreachable", ""),
    ] {
        let error = fetch(path, canned(answer), with_token(path, TOKEN)).unwrap_err();
        assert_eq!(error.code(), code, "{answer}: {error}");
        assert!(error.to_string().contains(said), "{answer}: {error}");
    }
}

/// A server of HTTP/1.0: one request a connection, whose end ends the answer, and no chunks.
fn old(folder: &Path) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let repo = folder.join("origin.git");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let head = head(&mut stream);
            let advertise = head.starts_with("get /origin.git/info/refs?service=git-upload-pack ");
            assert!(advertise || head.starts_with("post /origin.git/git-upload-pack "));
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            let mut question = vec![0; length.map_or(0, |length| length.parse().unwrap())];
            stream.read_exact(&mut question).unwrap();
            let (kind, body) = upload_pack(&repo, &question, advertise);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\n\r\n");
            stream
                .write_all(&[head.as_bytes(), &body].concat())
                .unwrap();
        }
    });
    address
}

#[test]
fn an_old_server_that_closes_each_connection_will_do() {
    if tool::find("git", "git").is_none() {
        return;
    }
    let (folder, tip) = origin();
    let path = folder.path();
    let repo = Repo::Http(format!("http://{}/origin.git", old(path)));
    let found = fetch(path, repo, Source::default()).unwrap();
    assert_eq!(found.id.as_str(), tip);
}

#[test]
fn a_fetch_is_cancelled_while_the_server_is_silent() {
    let (folder, _) = origin();
    for scheme in ["http", "https", "ssh"] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap();
        let repo = match scheme {
            "ssh" => Repo::Ssh(format!("ssh://git@{address}/x.git")),
            _ => Repo::Http(format!("{scheme}://{address}/x.git")),
        };
        let cancel = CancellationToken::new();
        let (begun, held) = (cancel.clone(), std::sync::mpsc::channel());
        std::thread::spawn(move || {
            let _ = held.0.send(silent.accept());
            begun.cancel();
        });
        let start = Instant::now();
        let error = fetch_until(folder.path(), repo, Source::default(), &cancel).unwrap_err();
        assert!(matches!(error, SourceError::Cancelled), "{error}");
        // Long before the silence is too long.
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}

/// `cargo test --test source -- --ignored silent`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "waits 30 seconds"]
async fn a_silent_server_is_given_up() {
    let (folder, _) = origin();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let repo = Repo::Http(format!("http://{}/x.git", silent.local_addr().unwrap()));
    let start = Instant::now();
    let error = fetch(folder.path(), repo, Source::default()).unwrap_err();
    assert!(
        matches!(
            error,
            SourceError::Unreachable { .. } | SourceError::TimedOut { .. }
        ),
        "{error}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(45),
        "{:?}",
        start.elapsed()
    );
}

// --- https ---

/// Serves the folder over https with a certificate that nobody has signed, written to `cert.pem`.
async fn https(folder: &Path) -> SocketAddr {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args([
            "-days",
            "2",
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output();
    assert!(made.unwrap().status.success());
    let chain = vec![CertificateDer::from_pem_file(cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = (rustls::ServerConfig::builder_with_provider(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let root = Arc::new(folder.to_owned());
    let token = Some(TOKEN);
    let app = Router::new()
        .fallback(serve)
        .with_state(Server { root, token });
    tokio::spawn(async move { axum::serve(Tls(listener, acceptor), app).await.unwrap() });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn https_trusts_the_systems_authorities_and_nobody_else() {
    if tool::find("git", "git").is_none() || tool::find("openssl", "openssl").is_none() {
        return;
    }
    let (folder, tip) = origin();
    let path = folder.path();
    let address = https(path).await;
    let url = format!("https://{address}/origin.git");
    let error = fetch(path, Repo::Http(url.clone()), with_token(path, TOKEN)).unwrap_err();
    assert!(
        matches!(error, SourceError::UnknownServer { .. }),
        "{error}"
    );
    // What the system trusts is read once a process: the other half runs in one of its own.
    let run = async |test: &str, trusted: &Path| {
        let output = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--nocapture", test])
            .env("SSL_CERT_FILE", trusted)
            .env("TEST_URL", &url)
            .output();
        String::from_utf8(output.await.unwrap().stdout).unwrap()
    };
    let cert = path.join("cert.pem");
    let text = run("https_with_a_trusted_authority", &cert).await;
    assert!(text.contains(&format!("fetched {tip}")), "{text}");
}

#[test]
#[ignore = "run by `https_trusts_the_systems_authorities_and_nobody_else`"]
fn https_with_a_trusted_authority() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::Http(std::env::var("TEST_URL").unwrap());
    let found = fetch(folder.path(), repo, with_token(folder.path(), TOKEN)).unwrap();
    println!("fetched {}", found.id);
}

// --- ssh ---

struct Sshd {
    process: Child,
    port: u16,
    host_key: String,
    folder: TempDir,
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key(path: &Path, kind: &str, more: &[&str]) {
    let mut made = Command::new("ssh-keygen");
    made.args(["-q", "-t", kind, "-N", ""]).args(more);
    assert!(made.arg("-f").arg(path).status().unwrap().success());
}

/// What `host_key` takes.
fn fingerprint(path: &Path) -> String {
    let shown = Command::new("ssh-keygen").arg("-lf").arg(path).output();
    let shown = String::from_utf8(shown.unwrap().stdout).unwrap();
    shown.split(' ').nth(1).unwrap().to_owned()
}

/// An sshd that lets the holder of `folder/key` in as root.
fn sshd() -> Option<Sshd> {
    let path = Path::new("/usr/sbin/sshd");
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| id.stdout == b"0\n");
    if !path.exists() || !root || tool::find("git", "git").is_none() {
        tool::skip("it needs root and /usr/sbin/sshd (apt-get install openssh-server)");
        return None;
    }
    // sshd separates privileges there; systemd makes it on a machine that runs it.
    std::fs::create_dir_all("/run/sshd").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["host", "key", "other"] {
        key(&at(name), "ed25519", &[]);
    }
    for (name, kind, more) in [
        ("host-rsa", "rsa", &["-b", "2048"] as &[&str]),
        ("host-ecdsa", "ecdsa", &[]),
        ("rsa", "rsa", &["-b", "2048"]),
        ("pem", "rsa", &["-b", "2048", "-m", "PEM"]),
        ("pkcs8", "ecdsa", &["-m", "PKCS8"]),
    ] {
        key(&at(name), kind, more);
    }
    let authorized = ["key", "rsa", "pem", "pkcs8"];
    let authorized = authorized.map(|name| std::fs::read(at(&format!("{name}.pub"))).unwrap());
    std::fs::write(at("authorized"), authorized.concat()).unwrap();
    std::fs::write(at("banner"), "fatal: Host key verification failed.\n").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {0}\nHostKey {0}-rsa\nHostKey {0}-ecdsa\nBanner {2}\nAuthorizedKeysFile {1}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\n",
        at("host").display(),
        at("authorized").display(),
        at("banner").display()
    );
    std::fs::write(at("config"), config).unwrap();
    let mut process = Command::new(path)
        .args(["-D", "-e", "-f"])
        .arg(at("config"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let far = Instant::now() + Duration::from_secs(10);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "sshd has ended");
        assert!(Instant::now() < far, "sshd does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    let host_key = fingerprint(&at("host.pub"));
    Some(Sshd {
        process,
        port,
        host_key,
        folder,
    })
}

impl Sshd {
    fn access(&self, key: &str, host_key: Option<&str>) -> Source {
        Source {
            ssh_key: Some(self.folder.path().join(key)),
            host_key: host_key.map(str::to_owned),
            ..Source::default()
        }
    }
}

#[test]
fn ssh_with_a_deploy_key_and_a_pinned_host_key() {
    let Some(sshd) = sshd() else { return };
    let (folder, tip) = origin();
    let path = folder.path();
    let repo = || {
        let (port, path) = (sshd.port, path.display());
        Repo::Ssh(format!("ssh://root@127.0.0.1:{port}{path}/origin.git"))
    };
    let pinned = Some(sshd.host_key.as_str());
    let found = fetch(path, repo(), sshd.access("key", pinned)).unwrap();
    assert_eq!(found.id.as_str(), tip);

    // Not the pinned key, and no pin for a server that known_hosts does not name: never trusted.
    let other = format!("SHA256:{}", "A".repeat(43));
    for wrong in [Some(other.as_str()), None] {
        let error = fetch(path, repo(), sshd.access("key", wrong)).unwrap_err();
        assert!(
            matches!(error, SourceError::UnknownServer { .. }),
            "{error}"
        );
        // So that the person can compare it and pin it.
        assert!(error.to_string().contains(&sshd.host_key), "{error}");
    }
    let error = fetch(path, repo(), sshd.access("other", pinned)).unwrap_err();
    assert!(matches!(error, SourceError::Refused { .. }), "{error}");
    let error = fetch(path, repo(), sshd.access("gone", pinned)).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
    let mut none = sshd.access("key", pinned);
    none.ssh_key = None;
    let error = fetch(path, repo(), none).unwrap_err();
    assert!(
        error.to_string().contains("`ssh_key` is not configured"),
        "{error}"
    );
    let gone = Repo::Ssh(format!("ssh://root@127.0.0.1:{}/nowhere.git", sshd.port));
    let error = fetch(path, gone, sshd.access("key", pinned)).unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
}

#[test]
fn ssh_takes_keys_of_every_kind_and_format() {
    let Some(sshd) = sshd() else { return };
    let (folder, tip) = origin();
    let path = folder.path();
    // Its name is one argument of the server's shell.
    let odd = path.join("it's a $(repo)!.git");
    std::fs::rename(path.join("origin.git"), &odd).unwrap();
    let at = |name: &str| sshd.folder.path().join(name);
    let key = std::fs::read_to_string(at("key")).unwrap();
    std::fs::write(at("crlf"), key.trim_end().replace('\n', "\r\n")).unwrap();
    std::fs::write(at("a key 100%"), &key).unwrap();
    std::fs::copy(at("key"), at("open")).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(at("open"), all).unwrap();
    let quoted = odd.to_str().unwrap().replace(' ', "%20");
    let repo = || Repo::Ssh(format!("ssh://root@127.0.0.1:{}{quoted}", sshd.port));
    for name in ["key", "rsa", "pem", "pkcs8", "crlf", "a key 100%", "open"] {
        let found = fetch(path, repo(), sshd.access(name, Some(&sshd.host_key)));
        assert_eq!(found.unwrap().id.as_str(), tip, "{name}");
    }
    // Whichever of its keys is pinned, the server is asked for that one.
    for name in ["host-rsa.pub", "host-ecdsa.pub", "host.pub"] {
        let pinned = format!("{}=", fingerprint(&at(name)));
        let found = fetch(path, repo(), sshd.access("key", Some(&pinned)));
        assert_eq!(found.unwrap().id.as_str(), tip, "{name}");
    }
    std::fs::copy(at("other"), at("locked")).unwrap();
    let locked = Command::new("ssh-keygen")
        .args(["-q", "-p", "-N", "passphrase", "-f"])
        .arg(at("locked"))
        .status();
    assert!(locked.unwrap().success());
    std::fs::write(at("cut"), &key[..100]).unwrap();
    for (name, said) in [
        ("locked", "passphrase"),
        ("key.pub", "is not a private key"),
        ("cut", "is cut off"),
    ] {
        let error = fetch(path, repo(), sshd.access(name, Some(&sshd.host_key))).unwrap_err();
        assert!(matches!(error, SourceError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[test]
fn an_ssh_server_that_is_down_or_none_is_unreachable() {
    let (folder, _) = origin();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = closed.local_addr().unwrap();
    drop(closed);
    let other = match canned("HTTP/1.1 400 Bad Request\r\n\r\n") {
        Repo::Http(url) => url.replace("http://", "ssh://git@"),
        _ => unreachable!(),
    };
    let pinned = Source {
        host_key: Some(format!("SHA256:{}", "A".repeat(43))),
        ..Source::default()
    };
    for url in [format!("ssh://git@{address}/x.git"), other] {
        for access in [Source::default(), pinned.clone()] {
            let error = fetch(folder.path(), Repo::Ssh(url.clone()), access).unwrap_err();
            assert!(matches!(error, SourceError::Unreachable { .. }), "{error}");
        }
    }
}

#[test]
fn ssh_knows_the_hosts_that_the_machine_knows() {
    let Some(sshd) = sshd() else { return };
    let (folder, tip) = origin();
    // Another /etc/ssh, for one process: the key of a kind that `ssh` would not ask for first, hashed.
    let known = folder.path().join("known");
    std::fs::create_dir(&known).unwrap();
    let host = std::fs::read_to_string(sshd.folder.path().join("host-rsa.pub")).unwrap();
    let file = known.join("ssh_known_hosts");
    std::fs::write(&file, format!("[127.0.0.1]:{} {host}", sshd.port)).unwrap();
    let hashed = Command::new("ssh-keygen").arg("-qHf").arg(&file).status();
    assert!(hashed.unwrap().success());
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(r#"mount --bind "$1" /etc/ssh && shift && exec "$@""#)
        .arg("sh")
        .arg(&known)
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "ssh_by_known_hosts"])
        .env(
            "TEST_URL",
            format!(
                "ssh://root@127.0.0.1:{}{}/origin.git",
                sshd.port,
                folder.path().display()
            ),
        )
        .env("TEST_KEY", sshd.folder.path().join("key"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("unshare failed") {
        return tool::skip("it needs to make a mount namespace");
    }
    assert!(text.contains(&format!("fetched {tip}")), "{text}{error}");
}

#[test]
#[ignore = "run by `ssh_knows_the_hosts_that_the_machine_knows`"]
fn ssh_by_known_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let repo = Repo::Ssh(std::env::var("TEST_URL").unwrap());
    let access = Source {
        ssh_key: Some(std::env::var_os("TEST_KEY").unwrap().into()),
        ..Source::default()
    };
    let found = fetch(folder.path(), repo, access).unwrap();
    println!("fetched {}", found.id);
}
