//! Apps that are a folder of files.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ::http::{HeaderMap, Request, StatusCode};
use cutover::build::SERVER;
use rustix::process::{Pid, Signal, kill_process};

use crate::server::{APP, File, HOST, Server};
use crate::support::demo::http::{self, Answer};

const SITE: &str = r#"
kind = "static"
dir = "public"
fallback = "app.html"
immutable = ["assets/*"]
domains = ["hello.test"]
[apps.hello.health]
interval = "50ms"
[apps.hello.deploy]
bake = "0s"
"#;

/// GETs a path through the proxy with more header fields.
async fn get(server: &mut Server, path: &str, fields: &[(&str, &str)]) -> Answer {
    let proxy = server.agent().proxy;
    let mut request = Request::get(path).header("host", HOST);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    http::send(proxy, request, "")
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn field<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |it| it.to_str().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_files_is_served_without_a_dockerfile() {
    let mut server = Server::with(SITE).await;
    let files = [
        File::new("README.md", "not served"),
        File::new("public/index.html", "<h1>one</h1>"),
        File::new("public/app.html", "<div id=app>"),
        File::new("public/about.html", "about"),
        File::new("public/docs/index.html", "docs"),
        File::new("public/assets/a.js", "plain"),
        File::new("public/assets/a.js.gz", "packed"),
        File::new("public/assets/a.js.br", "packed well"),
        File::new("public/.env", "SECRET=1"),
    ];
    let id = server.push_files(&files, "one").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{:?}\n{log:#?}", deployment.error);

    let page = get(&mut server, "/", &[]).await;
    assert_eq!(
        (page.status, page.text()),
        (StatusCode::OK, "<h1>one</h1>".into())
    );
    assert_eq!(
        field(&page.headers, "content-type"),
        "text/html; charset=utf-8"
    );
    assert_eq!(field(&page.headers, "cache-control"), "no-cache");
    let mark = field(&page.headers, "etag").to_owned();
    let known = get(&mut server, "/", &[("if-none-match", &mark)]).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);
    let time = field(&page.headers, "last-modified").to_owned();
    let known = get(&mut server, "/", &[("if-modified-since", &time)]).await;
    assert_eq!(known.status, StatusCode::NOT_MODIFIED);

    let script = get(&mut server, "/assets/a.js", &[]).await;
    assert_eq!(script.text(), "plain");
    assert!(field(&script.headers, "cache-control").contains("immutable"));
    let script = get(
        &mut server,
        "/assets/a.js",
        &[("accept-encoding", "br;q=0.1, gzip")],
    )
    .await;
    assert_eq!(script.text(), "packed");
    assert_eq!(field(&script.headers, "content-encoding"), "gzip");
    assert!(field(&script.headers, "vary").contains("accept-encoding"));

    for (path, status, text) in [
        ("/about", 200, "about"),
        ("/docs/", 200, "docs"),
        ("/a/page/of/the/app", 200, "<div id=app>"),
        ("/assets/gone.js", 404, "not found\n"),
        ("/.env", 404, "not found\n"),
        ("/README.md", 404, "not found\n"),
    ] {
        let found = get(&mut server, path, &[]).await;
        assert_eq!(
            (found.status.as_u16(), found.text()),
            (status, text.into()),
            "{path}"
        );
    }
    let moved = get(&mut server, "/docs?a=b", &[]).await;
    assert_eq!(moved.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(field(&moved.headers, "location"), "/docs/?a=b");
    let part = get(&mut server, "/about.html", &[("range", "bytes=1-2")]).await;
    assert_eq!(
        (part.status, part.text()),
        (StatusCode::PARTIAL_CONTENT, "bo".into())
    );
    assert_eq!(field(&part.headers, "content-range"), "bytes 1-2/5");
    let range = format!("bytes=1-{}", "9".repeat(20));
    let part = get(&mut server, "/about.html", &[("range", &range)]).await;
    assert_eq!(part.text(), "bout");

    // The next version; a page that a browser has is not that of before.
    let files = [
        File::new("public/index.html", "<h1>two</h1>"),
        File::new("public/app.html", "<div id=app>"),
    ];
    let id = server.push_files(&files, "two").await;
    assert_eq!(server.ended(&id).await.0.state, "live");
    let page = get(&mut server, "/", &[("if-none-match", &mark)]).await;
    assert_eq!(
        (page.status, page.text()),
        (StatusCode::OK, "<h1>two</h1>".into())
    );
    let back = server
        .cutover(&["rollback", APP, "--follow"])
        .output()
        .unwrap();
    assert!(back.status.success(), "{back:?}");
    assert_eq!(get(&mut server, "/", &[]).await.text(), "<h1>one</h1>");

    // What is not there to be served fails before anything is built.
    let id = server
        .push_files(&[File::new("index.html", "")], "three")
        .await;
    let (deployment, _) = server.ended(&id).await;
    assert_eq!(deployment.error.unwrap().code, "no_site");
}

/// The server as a process.
struct Program {
    child: Child,
    port: u16,
}

impl Program {
    fn start(folder: &std::path::Path) -> Self {
        let program = folder.join("server");
        std::fs::write(&program, SERVER).unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let mut child = loop {
            let spawned = Command::new(&program)
                .arg(folder.join("site"))
                .env("PORT", "0")
                .stdout(Stdio::piped())
                .spawn();
            match spawned {
                Ok(child) => break child,
                // Another test forked while the file was being written.
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                Err(error) => panic!("{error}"),
            }
        };
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let port = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, port }
    }

    fn connect(&self) -> TcpStream {
        let connection = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        connection
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        connection
    }

    /// Everything that the server says to this before it hangs up.
    fn say(&self, text: &str) -> String {
        let mut connection = self.connect();
        connection.write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        connection.read_to_string(&mut said).unwrap();
        said
    }
}

#[test]
fn the_server_of_sites_gives_nothing_else_away_and_finishes_what_it_began() {
    let folder = tempfile::tempdir().unwrap();
    let site = folder.path().join("site");
    std::fs::create_dir_all(site.join("a/.git")).unwrap();
    std::fs::create_dir_all(site.join(".well-known")).unwrap();
    for (path, text) in [
        ("index.html", "home"),
        ("404.html", "gone"),
        ("a/.git/config", "token"),
        (".well-known/security.txt", "mail"),
        ("../outside", "token"),
        ("a b.txt", "spaced"),
    ] {
        std::fs::write(site.join(path), text).unwrap();
    }
    let latin = std::ffi::OsStr::from_bytes(b"caf\xe9.html");
    std::fs::write(site.join(latin), "latin").unwrap();
    std::fs::write(site.join("large"), vec![b'x'; 8 << 20]).unwrap();
    // As builders leave files whose images are to be the same: that says nothing of when they changed.
    std::fs::write(site.join("undated"), "undated").unwrap();
    let undated = std::fs::File::options()
        .write(true)
        .open(site.join("undated"));
    undated
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    std::os::unix::fs::symlink("../outside", site.join("link")).unwrap();
    std::os::unix::fs::symlink("index.html", site.join("inside")).unwrap();
    let mut program = Program::start(folder.path());
    for (path, status, text) in [
        ("/", "200", "home"),
        ("/inside", "200", "home"),
        ("/a%20b.txt", "200", "spaced"),
        ("/caf%E9.html", "200", "latin"),
        ("/caf%e9", "200", "latin"),
        ("/caf%C3%A9", "404", "gone"),
        ("/.well-known/security.txt", "200", "mail"),
        ("/../outside", "404", "gone"),
        ("/a/../../outside", "404", "gone"),
        ("/%2e%2e/outside", "404", "gone"),
        ("/..%2foutside", "404", "gone"),
        ("//etc/passwd", "404", "gone"),
        ("/a/.git/config", "404", "gone"),
        ("/link", "404", "gone"),
        ("/index.html/", "404", "gone"),
        ("/%00", "404", "gone"),
        ("/%zz", "404", "gone"),
        ("/.cutover/health", "200", "ok\n"),
    ] {
        let said = program.say(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ));
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{path}: {said}"
        );
        assert!(said.ends_with(&format!("\r\n\r\n{text}")), "{path}: {said}");
    }
    let head = program.say("HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    assert!(
        head.contains("content-length: 4\r\n") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    let field = |name: &str| {
        let mut lines = head.lines();
        let line = lines.find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap().to_owned()
    };
    let (mark, time) = (field("etag"), field("last-modified"));
    let range = "range: bytes=0-0\r\n";
    for (path, fields, status) in [
        ("/", "if-match: \"other\"\r\n".to_owned(), "412"),
        ("/", format!("if-match: \"other\"\r\n{range}"), "412"),
        ("/", format!("if-match: W/{mark}\r\n"), "412"),
        (
            "/",
            format!("if-match: \"other\", {mark}\r\n{range}"),
            "206",
        ),
        ("/", "if-match: *\r\n".to_owned(), "200"),
        ("/", format!("if-unmodified-since: {time}\r\n"), "200"),
        (
            "/",
            "if-unmodified-since: Sun, 06 Nov 1994 08:49:37 GMT\r\n".to_owned(),
            "412",
        ),
        ("/", "if-unmodified-since: soon\r\n".to_owned(), "200"),
        ("/", format!("if-modified-since: {time}\r\n"), "304"),
        (
            "/undated",
            "if-modified-since: Thu, 01 Jan 1970 00:00:00 GMT\r\n".to_owned(),
            "200",
        ),
        ("/nothing", "if-match: *\r\n".to_owned(), "404"),
    ] {
        let said = program.say(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\n{fields}connection: close\r\n\r\n"
        ));
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{fields}: {said}"
        );
    }
    let post = program.say("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc");
    assert!(
        post.starts_with("HTTP/1.1 405 ") && post.contains("allow: GET, HEAD"),
        "{post}"
    );
    let long = program.say(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(40 << 10)));
    assert!(long.starts_with("HTTP/1.1 431 "), "{long}");
    assert!(program.say("nonsense\r\n\r\n").starts_with("HTTP/1.1 400 "));

    // SIGTERM in the middle of an answer.
    let mut slow = program.connect();
    slow.write_all(b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut first = [0; 16];
    slow.read_exact(&mut first).unwrap();
    let pid = Pid::from_raw(program.child.id() as i32).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let refused = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(("127.0.0.1", program.port)).is_ok() {
        assert!(Instant::now() < refused, "it still accepts connections");
        std::thread::sleep(Duration::from_millis(5));
    }
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 8 << 20, "{}", rest.len());
    assert!(program.child.wait().unwrap().success());
}
