//! What the sample app does besides serving, by its arguments: a worker's loop, and small programs for
//! jobs.
//!
//! ```text
//! work               logs a line, then works until it is told to end
//! exit CODE          ends with this code
//! sleep MS           ends after that long
//! append FILE TEXT   adds a line to a file
//! talk               answers what is typed: `size` of its terminal, `exit CODE`
//! ```

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::process::exit;
use std::thread::sleep;
use std::time::Duration;

use crate::App;

/// Returns if these are no such arguments.
pub fn run(app: &App, arguments: &[&str]) {
    let millis = |text: &str| Duration::from_millis(text.parse().expect("milliseconds"));
    match arguments {
        ["work"] => work(app),
        ["talk"] => talk(),
        ["exit", code] => exit(code.parse().expect("a code")),
        ["sleep", ms] => {
            sleep(millis(ms));
            exit(0)
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

fn work(app: &App) -> ! {
    println!("{} works", app.version);
    if let Some(wait) = app.wait("worker-exits") {
        sleep(wait);
        println!("{}: no work left", app.version);
        exit(4)
    }
    loop {
        sleep(Duration::from_secs(3600));
    }
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
