//! The sample app of `cutover demo` and of the tests: a small HTTP/1.1 server on nothing but std,
//! which `build.rs` links statically so that its image is `FROM scratch`.
//!
//! It is a hard app to replace without losing a request: as pid 1 it has no SIGTERM handler, which
//! the kernel takes as "ignore", and its Dockerfile says `STOPSIGNAL SIGKILL`, so that `docker stop`
//! ends it at once and in the middle of whatever it is doing. Without that line it ignores SIGTERM
//! until Docker's grace is over.
//!
//! `/version` in the image is what it says it is. `/behaviour`, if there, has one behaviour a line:
//!
//! ```text
//! unhealthy          every answer is a 503
//! exit-at-start      logs a line and exits with code 7
//! slow-start MS      waits before it listens
//! crash-after MS     exits that long after it began to listen
//! eat-after MS       takes memory without end, that long after it began to listen
//! command-fails      `/bin/sh -c …`, where the image has it as a shell, exits with code 1
//! idle-close MS      closes a connection that is idle for so long
//! listen PORT        listens there, whatever PORT says
//! host NAME          a request for any other host is answered with 400
//! to-https           what has not come by https is redirected there
//! fails-by-https     what has come by https is answered with 500
//! no-root            `/` is answered with 404
//! unhealthy-after MS every answer is a 503 that long after its start
//! fail N PATH        each Nth request of PATH is answered with 500
//! worker-prints N    as a worker, first prints N lines of 10,000 bytes
//! worker-exits MS    as a worker, exits with code 4 that long after its start
//! ```
//!
//! As a plain process, without an image, it takes its version from `HELLO_VERSION` and its port from
//! `PORT`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

mod jobs;
mod tool;
mod websocket;

struct App {
    version: String,
    behaviour: String,
    started: Instant,
    /// How often a page was asked for that fails now and then.
    asked: AtomicU64,
}

impl App {
    fn is(&self, word: &str) -> bool {
        self.behaviour.lines().any(|line| line.trim() == word)
    }

    /// What stands after `word`.
    fn after(&self, word: &str) -> Option<&str> {
        let mut lines = self.behaviour.lines();
        lines.find_map(|line| line.trim().strip_prefix(word)?.strip_prefix(' '))
    }

    /// The number that stands after `word`.
    fn number(&self, word: &str) -> Option<u64> {
        self.after(word)?.trim().parse().ok()
    }

    /// The milliseconds that stand after `word`.
    fn wait(&self, word: &str) -> Option<Duration> {
        self.number(word).map(Duration::from_millis)
    }

    /// Whether this is a request that fails by `fail N PATH`.
    fn fails(&self, path: &str) -> bool {
        let Some((every, of)) = self.after("fail").and_then(|it| it.split_once(' ')) else {
            return false;
        };
        of == path
            && (self.asked.fetch_add(1, Relaxed) + 1).is_multiple_of(every.parse().unwrap_or(1))
    }

    fn is_unhealthy(&self) -> bool {
        let since = self.wait("unhealthy-after");
        self.is("unhealthy") || since.is_some_and(|wait| self.started.elapsed() > wait)
    }
}

fn eat() -> ! {
    let mut eaten = Vec::new();
    loop {
        eaten.push(vec![1u8; 1 << 20]);
    }
}

fn main() {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    let app = Arc::new(App {
        version: std::env::var("HELLO_VERSION")
            .unwrap_or_else(|_| text("/version").trim().to_owned()),
        behaviour: text("/behaviour"),
        started: Instant::now(),
        asked: AtomicU64::new(0),
    });
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // As `/bin/sh -c COMMAND` it stands in for a shell, which an image FROM scratch does not have. All that
    // it can run is itself.
    if let ["-c", command] = arguments[..] {
        let mut words = command.split_whitespace();
        if words.next() != Some("/hello") {
            println!("{}: {command}", app.version);
            exit(i32::from(app.is("command-fails")))
        }
        arguments = words.collect();
    }
    tool::run(&app, &arguments);
    if app.is("exit-at-start") {
        println!("{}: cannot find the flux capacitor", app.version);
        exit(7)
    }
    if let Some(wait) = app.wait("slow-start") {
        thread::sleep(wait);
    }
    let port = std::env::var("PORT").map_or(8080, |port| port.parse().expect("PORT is a number"));
    let port = app
        .after("listen")
        .map_or(port, |port| port.parse().expect("a number"));
    // Not "0.0.0.0:8080": parsing a name would link the C library's resolver, 130 KB.
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap_or_else(|error| {
        println!("{}: cannot listen on port {port}: {error}", app.version);
        exit(1)
    });
    let port = listener.local_addr().map_or(port, |address| address.port());
    println!("{} listens on port {port}", app.version);
    if let Some(wait) = app.wait("crash-after") {
        let version = app.version.clone();
        thread::spawn(move || {
            thread::sleep(wait);
            println!("{version}: out of dilithium");
            exit(3)
        });
    }
    if let Some(wait) = app.wait("eat-after") {
        thread::spawn(move || {
            thread::sleep(wait);
            eat()
        });
    }
    for connection in listener.incoming().flatten() {
        let app = app.clone();
        // A connection that ends in an error is the client's to notice.
        thread::spawn(move || serve(&app, connection));
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    body: Vec<u8>,
    keep_alive: bool,
    /// `Sec-WebSocket-Key`.
    key: String,
    host: String,
    /// `X-Forwarded-Proto`.
    scheme: String,
}

impl Request {
    fn number(&self, name: &str) -> u64 {
        let pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let mut found = pairs.filter(|(key, _)| *key == name);
        found.next().and_then(|(_, n)| n.parse().ok()).unwrap_or(0)
    }
}

fn serve(app: &App, connection: TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let idle = app.wait("idle-close");
    let mut input = BufReader::new(connection.try_clone()?);
    let mut output = connection;
    loop {
        output.set_read_timeout(idle)?;
        if input.fill_buf()?.is_empty() {
            return Ok(());
        }
        output.set_read_timeout(Some(Duration::from_secs(30)))?;
        let request = read_request(&mut input)?;
        if request.path == "/ws" {
            output.set_read_timeout(None)?;
            upgrade(&request, &mut output)?;
            return websocket::serve(&app.version, &mut input, &mut output);
        }
        answer(app, &request, &mut output)?;
        if !request.keep_alive {
            return Ok(());
        }
    }
}

fn read_request(input: &mut impl BufRead) -> io::Result<Request> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    let first = read_line(input)?;
    let mut words = first.split(' ');
    let (method, target) = words
        .next()
        .zip(words.next())
        .ok_or_else(|| bad("no target"))?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        body: Vec::new(),
        keep_alive: !first.ends_with("HTTP/1.0"),
        key: String::new(),
        host: String::new(),
        scheme: String::new(),
    };
    let (mut length, mut chunked) = (0, false);
    loop {
        let line = read_line(input)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad("no colon"))?;
        let (name, key) = (name.to_ascii_lowercase(), value.trim());
        let value = key.to_ascii_lowercase();
        match name.as_str() {
            "sec-websocket-key" => request.key = key.to_owned(),
            "host" => request.host = value,
            "x-forwarded-proto" => request.scheme = value,
            "content-length" => length = value.parse().map_err(|_| bad("length"))?,
            "transfer-encoding" => chunked = value == "chunked",
            "connection" => request.keep_alive = value != "close",
            _ => {}
        }
    }
    loop {
        if chunked {
            length = u64::from_str_radix(&read_line(input)?, 16).map_err(|_| bad("chunk"))?;
        }
        input.by_ref().take(length).read_to_end(&mut request.body)?;
        if chunked {
            read_line(input)?;
        }
        if !chunked || length == 0 {
            return Ok(request);
        }
    }
}

fn read_line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if input.take(16 << 10).read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn answer(app: &App, request: &Request, output: &mut TcpStream) -> io::Result<()> {
    let version = &app.version;
    if let Some(host) = app.after("host")
        && host != request.host
    {
        return send(app, output, "400 Bad Request", "not for this host\n");
    }
    if app.is("to-https") && request.scheme != "https" {
        let (host, path) = (&request.host, &request.path);
        let moved = format!("301 Moved Permanently\r\nlocation: https://{host}{path}");
        return send(app, output, &moved, "");
    }
    let fails = app.is("fails-by-https") && request.scheme == "https";
    if fails || app.fails(&request.path) {
        return send(app, output, "500 Internal Server Error", "it fails\n");
    }
    if app.is_unhealthy() {
        return send(
            app,
            output,
            "503 Service Unavailable",
            "the sample app is unhealthy\n",
        );
    }
    match (request.method.as_str(), request.path.as_str()) {
        (_, "/") if app.is("no-root") => send(app, output, "404 Not Found", "not here\n"),
        (_, "/" | "/health") => send(app, output, "200 OK", &format!("Hello from {version}\n")),
        // Logged before it is answered: the log counts how often a request was processed.
        ("POST", "/count") => {
            let id = String::from_utf8_lossy(&request.body);
            println!("count {id}");
            send(app, output, "200 OK", &id)
        }
        ("POST", "/jobs") => {
            let id = String::from_utf8_lossy(&request.body);
            let folder = std::env::var("JOBS").unwrap_or_default();
            match jobs::add(&folder, &id) {
                Ok(()) => send(app, output, "200 OK", &id),
                Err(error) => {
                    let why = format!("not taken: {error}\n");
                    send(app, output, "500 Internal Server Error", &why)
                }
            }
        }
        (_, "/slow") => {
            thread::sleep(Duration::from_millis(request.number("ms")));
            send(app, output, "200 OK", &format!("slowly from {version}\n"))
        }
        (_, "/stream") => stream(app, output, request.number("bytes"), request.number("ms")),
        ("POST", "/upload") => {
            let length = request.body.len();
            send(app, output, "200 OK", &length.to_string())
        }
        (_, "/events") => events(app, output, request.number("ms")),
        (_, "/env") => {
            let mut lines: Vec<String> = std::env::vars()
                .map(|(k, v)| format!("{k}={v}\n"))
                .collect();
            lines.sort();
            send(app, output, "200 OK", &lines.concat())
        }
        (_, "/exit") => {
            println!("{version}: asked to exit");
            exit(5)
        }
        _ => send(
            app,
            output,
            "404 Not Found",
            "the sample app has no such page\n",
        ),
    }
}

fn send(app: &App, output: &mut TcpStream, status: &str, body: &str) -> io::Result<()> {
    let (version, length) = (&app.version, body.len());
    // One write, so that one packet carries the whole answer.
    output.write_all(
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n\
             x-version: {version}\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .as_bytes(),
    )
}

/// `bytes` bytes in chunks of up to 1 KiB, spread evenly over `ms` milliseconds.
fn stream(app: &App, output: &mut TcpStream, bytes: u64, ms: u64) -> io::Result<()> {
    let version = &app.version;
    write!(
        output,
        "HTTP/1.1 200 OK\r\nx-version: {version}\r\ntransfer-encoding: chunked\r\n\r\n"
    )?;
    let begun = Instant::now();
    let mut sent = 0;
    while sent < bytes {
        let size = (bytes - sent).min(1024);
        sent += size;
        let chunk = format!("{size:x}\r\n{}\r\n", ".".repeat(size as usize));
        output.write_all(chunk.as_bytes())?;
        let due = Duration::from_millis(ms * sent / bytes);
        thread::sleep(due.saturating_sub(begun.elapsed()));
    }
    output.write_all(b"0\r\n\r\n")
}

/// An event of the app's version, and one more every `ms` milliseconds, without end.
fn events(app: &App, output: &mut TcpStream, ms: u64) -> io::Result<()> {
    let version = &app.version;
    write!(
        output,
        "HTTP/1.1 200 OK\r\nx-version: {version}\r\ncontent-type: text/event-stream\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )?;
    loop {
        let event = format!("data: {version}\n\n");
        output.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        thread::sleep(Duration::from_millis(ms.max(1)));
    }
}

fn upgrade(request: &Request, output: &mut TcpStream) -> io::Result<()> {
    let accept = websocket::accept(&request.key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {accept}\r\n\r\n"
    );
    output.write_all(head.as_bytes())
}
