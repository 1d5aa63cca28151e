//! `build.command`: a program of this machine that leaves an image, or the files of a site.

use std::collections::{BTreeMap, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::checkout::{self, Work};
use super::left::{self, Run};
use super::{BuildError, Context};
use crate::config::Site;
use crate::engine::Engine;
use crate::ids::CommitId;
use crate::join::{Join, Line};
use crate::source::Mirror;
use crate::store::log::Log;

/// Of the agent's own environment, which has secrets, the program gets only this.
const PASSED_ON: [&str; 6] = [
    "PATH",
    "LANG",
    "TZ",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
/// Of the log, in the error of a program that failed.
const TAIL: usize = 20;
/// How long what the program has said may take to be read once it has ended.
const REST: Duration = Duration::from_secs(2);
/// How much of a line is kept, in bytes.
const LONGEST: usize = 16 << 10;

/// The program, and what it is to know.
pub(super) struct Program<'a> {
    /// With `{image}` where it takes the image's name.
    pub(super) argv: &'a [String],
    /// The name that its image is to have, which is this build's alone.
    pub(super) image: String,
    /// Where the checkout is made.
    pub(super) folder: PathBuf,
    pub(super) commit: &'a CommitId,
    /// What it knows of that, by name.
    pub(super) own_args: [(&'static str, String); 6],
    pub(super) args: &'a BTreeMap<String, String>,
    /// What it makes in place of an image.
    pub(super) site: Option<&'a Site>,
}

/// What the program has left, and where it did so.
pub(super) struct Left {
    /// The image by the name that it was to give it; `None` if it made a site.
    pub(super) image: Option<String>,
    _work: Work,
}

/// Runs the program in a checkout of `context` until it ends. Dropped, it ends all its processes.
pub(super) async fn run(
    engine: &Engine,
    program: &Program<'_>,
    context: Context,
    log: &Log,
) -> Result<(Context, Left), BuildError> {
    let (work, tree) = check_out(program.folder.clone(), context).await?;
    let image = &program.image;
    let words = program.argv.iter();
    let argv: Vec<_> = words.map(|word| word.replace("{image}", image)).collect();
    let shown = argv.join(" ");
    log.line(&format!(
        "running `{shown}` in a checkout of {}",
        program.commit.short()
    ));
    let run = Run::new(program.folder.clone());
    let command = command(engine, program, &argv, &work, &run);
    ended(command, run, &shown, log).await?;
    let Some(site) = program.site.cloned() else {
        if engine.image_id(image).await?.is_none() {
            return Err(BuildError::NoImage {
                command: shown,
                image: image.clone(),
            });
        }
        let context = Context::of_image(image);
        let left = Left {
            image: Some(image.clone()),
            _work: work,
        };
        return Ok((context, left));
    };
    let log = log.clone();
    let read = move || {
        let folder = tree.join(&site.dir);
        match folder.is_dir() {
            true => Context::of_site(&site, &folder, &|text| log.line(text)),
            false => Err(BuildError::NoSite(site.dir.clone())),
        }
    };
    let left = Left {
        image: None,
        _work: work,
    };
    Ok((blocking(read).await?, left))
}

async fn check_out(place: PathBuf, mut context: Context) -> Result<(Work, PathBuf), BuildError> {
    let write = move || {
        let wrong = |error: std::io::Error| BuildError::Checkout {
            path: ".".into(),
            why: error.to_string(),
        };
        let work = Work::at(place).map_err(wrong)?;
        let tree = work.path().join("tree");
        for folder in [&tree, &work.path().join("home")] {
            std::fs::create_dir(folder).map_err(wrong)?;
        }
        let written = checkout::write(&mut context, &tree);
        // The context knows better why it cannot be read.
        match context.failed.take() {
            Some(error) if written.is_err() => Err(error),
            _ => written.map(|()| (work, tree)),
        }
    };
    blocking(write).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.expect("reading and writing files does not panic")
}

fn command(
    engine: &Engine,
    program: &Program<'_>,
    argv: &[String],
    work: &Work,
    run: &Run,
) -> Command {
    let mut command = Command::new(argv.first().map_or("", String::as_str));
    command.args(argv.iter().skip(1)).env_clear();
    for name in PASSED_ON {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    let docker = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    let docker = docker.or_else(home).filter(|folder| folder.is_dir());
    command
        .envs(docker.map(|folder| ("DOCKER_CONFIG", folder)))
        .env("DOCKER_HOST", engine.host())
        .env("HOME", work.path().join("home"))
        .envs(program.own_args.iter().map(|(name, value)| (name, value)))
        .env("IMAGE", &program.image)
        .envs(program.args)
        .envs([run.mark()]);
    command
        .current_dir(work.path().join("tree"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // What it starts ends with it.
        .process_group(0);
    command
}

/// Ends the processes of an app's builder that an agent which was killed has left. Blocks.
pub fn end_left(mirror: &Mirror) {
    left::end_all(&folder(mirror));
}

/// Where the checkout of an app is made.
pub(super) fn folder(mirror: &Mirror) -> PathBuf {
    mirror.more().join("work")
}

/// Ends the processes of a group, and those that have left it, whatever they do.
struct Group {
    id: Option<Pid>,
    run: Arc<Run>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.id {
            // Gone already, mostly.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let run = self.run.clone();
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || run.end())),
            Err(_) => run.end(),
        }
    }
}

async fn ended(mut command: Command, run: Run, shown: &str, log: &Log) -> Result<(), BuildError> {
    let failed = |message: String, log_tail| BuildError::Failed {
        step: shown.to_owned(),
        message,
        log_tail,
    };
    let mut child = command
        .spawn()
        .map_err(|error| failed(format!("it cannot be started: {error}"), Vec::new()))?;
    let _group = Group {
        id: child.id().and_then(|id| Pid::from_raw(id as i32)),
        run: Arc::new(run),
    };
    let tail = Arc::new(parking_lot::Mutex::new(VecDeque::new()));
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let said = async {
        tokio::join!(follow(out, log, &tail), follow(err, log, &tail));
    };
    let mut said = std::pin::pin!(said);
    let status = tokio::select! {
        biased;
        () = &mut said => child.wait().await,
        status = child.wait() => {
            // Another process may keep the pipe open for ever.
            let _ = tokio::time::timeout(REST, said).await;
            status
        }
    };
    let status = status.map_err(|error| failed(error.to_string(), Vec::new()))?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(
            how_it_ended(status),
            tail.lock().iter().cloned().collect(),
        )),
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("it exited with code {code}"),
        (None, Some(signal)) => format!("it was ended by signal {signal}"),
        (None, None) => "it was ended".to_owned(),
    }
}

async fn follow(
    from: Option<impl AsyncRead + Unpin>,
    log: &Log,
    tail: &parking_lot::Mutex<VecDeque<String>>,
) {
    let Some(from) = from else { return };
    let mut from = BufReader::with_capacity(LONGEST, from);
    let mut open = Join::default();
    while let Ok(bytes) = from.fill_buf().await {
        if bytes.is_empty() {
            break;
        }
        let (lines, used) = (open.take(bytes, LONGEST), bytes.len());
        from.consume(used);
        lines.iter().for_each(|line| say(line, log, tail));
    }
    if let Some(rest) = open.rest() {
        say(&rest, log, tail);
    }
}

fn say(line: &Line, log: &Log, tail: &parking_lot::Mutex<VecDeque<String>>) {
    let text = String::from_utf8_lossy(&line.head).trim_end().to_owned() + &line.note();
    log.line(&text);
    let mut tail = tail.lock();
    if tail.len() == TAIL {
        tail.pop_front();
    }
    tail.push_back(text);
}
