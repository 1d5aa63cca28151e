//! What the sample app does besides serving, by its arguments: a worker's loop, and small programs for
//! jobs.
//!
//! ```text
//! work               logs a line, then works until it is told to end
//! exit CODE          ends with this code
//! sleep MS           ends after that long
//! append FILE TEXT   adds a line to a file
//! jobs FOLDER        does the jobs of a queue
//! cat FILE           what is in a file
//! fetch TO HOST PATH COUNT   status and version of each answer; TO is an address or a name in /etc/hosts
//! reach ADDRESS:PORT ends with 0 if something accepts a connection there
//! print COUNT LENGTH  prints so many lines of so many bytes
//! echo               prints its input, byte by byte
//! eat                takes memory without end
//! talk               answers what is typed: `size` of its terminal, `exit CODE`
//! ```

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

use crate::{App, jobs};

/// Returns if these are no such arguments.
pub fn run(app: &App, arguments: &[&str]) {
    let millis = |text: &str| Duration::from_millis(text.parse().expect("milliseconds"));
    match arguments {
        ["work"] => work(app),
        ["talk"] => talk(),
        ["eat"] => crate::eat(),
        ["echo"] => {
            let copied = std::io::copy(&mut std::io::stdin(), &mut std::io::stdout());
            exit(i32::from(copied.is_err()))
        }
        ["print", count, length] => {
            print(
                count.parse().expect("a number"),
                length.parse().expect("a length"),
            );
            exit(0)
        }
        ["jobs", folder] => jobs::work(folder),
        ["exit", code] => exit(code.parse().expect("a code")),
        ["sleep", ms] => {
            sleep(millis(ms));
            exit(0)
        }
        ["cat", file] => {
            print!("{}", std::fs::read_to_string(file).expect("a file"));
            exit(0)
        }
        ["fetch", to, host, path, count] => fetch(to, host, path, count.parse().expect("a number")),
        ["reach", address] => {
            let address = address.parse().expect("an address");
            let reached = TcpStream::connect_timeout(&address, Duration::from_secs(2));
            exit(i32::from(reached.is_err()))
        }
        ["append", file, text] => {
            let mut options = OpenOptions::new();
            let file = options.create(true).append(true).open(file);
            let mut file = file.expect("a file");
            writeln!(file, "{text}").expect("the file can be written");
            exit(0)
        }
        _ => {}
    }
}

/// Ends when nobody reads it.
fn print(count: usize, length: usize) {
    let filler = "x".repeat(length.saturating_sub(8));
    let mut out = std::io::BufWriter::with_capacity(64 << 10, std::io::stdout().lock());
    for number in 0..count {
        if writeln!(out, "{number:07} {filler}").is_err() {
            exit(1)
        }
    }
    let _ = out.flush();
}

fn work(app: &App) -> ! {
    println!("{} works", app.version);
    if let Some(count) = app.number("worker-prints") {
        print(count as usize, 10_000);
        println!("{} has printed", app.version);
    }
    if let Some(wait) = app.wait("worker-exits") {
        sleep(wait);
        println!("{}: no work left", app.version);
        exit(4)
    }
    loop {
        sleep(Duration::from_secs(3600));
    }
}

/// Ends with 1 if there is no such host.
fn fetch(to: &str, host: &str, path: &str, count: usize) -> ! {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let named = hosts.lines().find_map(|line| {
        let (address, names) = line.split_once('\t')?;
        names
            .split_whitespace()
            .any(|name| name == to)
            .then(|| address.parse().ok())?
    });
    // Not by a resolver: see `main`.
    let Some(address) = named.or_else(|| to.parse::<Ipv4Addr>().ok()) else {
        exit(1)
    };
    for _ in 0..count {
        let answer = ask(address, host, path).unwrap_or_else(|error| format!("{error}"));
        let version = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-version: "));
        println!(
            "{} {}",
            answer.get(9..12).unwrap_or(&answer),
            version.unwrap_or("-")
        );
    }
    exit(0)
}

fn ask(address: Ipv4Addr, host: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((address, 80))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn talk() -> ! {
    println!("terminal: {}", std::io::stdin().is_terminal());
    for line in std::io::stdin().lines() {
        let line = line.expect("text");
        match line.split_once(' ') {
            Some(("exit", code)) => {
                eprintln!("bye");
                exit(code.parse().expect("a code"))
            }
            _ if line == "size" => {
                let (columns, rows) = size();
                println!("{columns}x{rows}");
            }
            _ => println!("said: {line}"),
        }
    }
    exit(9)
}

/// Of the terminal, in characters.
fn size() -> (u16, u16) {
    // From the C library that std is linked with.
    unsafe extern "C" {
        fn ioctl(fd: i32, request: std::ffi::c_ulong, size: *mut [u16; 4]) -> i32;
    }
    const TIOCGWINSZ: std::ffi::c_ulong = 0x5413;
    let mut size = [0; 4];
    // SAFETY: the request writes a `winsize`, four 16-bit numbers.
    unsafe { ioctl(0, TIOCGWINSZ, &mut size) };
    (size[1], size[0])
}
