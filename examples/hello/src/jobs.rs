//! A queue of jobs in a folder: what the web server takes, workers do, each once. A job is a file; who
//! moves it away first has it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::sleep;
use std::time::Duration;

/// How long a job takes.
const WORK: Duration = Duration::from_millis(20);

static ENDING: AtomicBool = AtomicBool::new(false);

/// Returns once the job is on disk.
pub fn add(folder: &str, id: &str) -> io::Result<()> {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || !id.chars().all(name) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let folder = Path::new(folder);
    fs::create_dir_all(folder.join("new"))?;
    let temp = folder.join(format!("{id}.part"));
    fs::File::create(&temp)?.sync_all()?;
    fs::rename(temp, folder.join("new").join(id))
}

/// Works until SIGTERM, and finishes what it has begun.
pub fn work(folder: &str) -> ! {
    on_sigterm();
    let folder = Path::new(folder);
    let taken = folder.join("taken");
    fs::create_dir_all(folder.join("new")).expect("the folder can be written");
    fs::create_dir_all(&taken).expect("the folder can be written");
    println!("waits for jobs");
    loop {
        let jobs = fs::read_dir(folder.join("new")).expect("the folder can be read");
        for job in jobs.flatten() {
            if ENDING.load(SeqCst) {
                println!("told to end");
                exit(0)
            }
            let its = taken.join(job.file_name());
            // Another worker was faster.
            if fs::rename(job.path(), &its).is_err() {
                continue;
            }
            sleep(WORK);
            let mut options = OpenOptions::new();
            let done = options.create(true).append(true).open(folder.join("done"));
            let line = format!("{}\n", job.file_name().to_string_lossy());
            // One write, so that lines of several workers do not mix.
            let written = done.and_then(|mut done| done.write_all(line.as_bytes()));
            written.expect("the folder can be written");
            fs::remove_file(its).expect("the folder can be written");
        }
        if ENDING.load(SeqCst) {
            println!("told to end");
            exit(0)
        }
        sleep(Duration::from_millis(10));
    }
}

fn on_sigterm() {
    extern "C" fn end(_: i32) {
        ENDING.store(true, SeqCst);
    }
    // From the C library that std is linked with.
    unsafe extern "C" {
        fn signal(number: i32, handler: extern "C" fn(i32)) -> usize;
    }
    const SIGTERM: i32 = 15;
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, end) };
}
