//! The SSH agents that steps of a build may use: one that runs already, or one of its own for each key
//! file, which ends with the build.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::BuildError;
use crate::config::{Secret, is_socket};
use crate::source::ssh_key;

/// Holds the agent while its input is open, so that it also ends when we are killed: `ssh-agent` follows
/// the program that it runs.
const HOLD: &str = "SSH_ASKPASS= ssh-add -q \"$1\" </dev/null && echo ready && exec cat";
const READY: &str = "ready";
/// How long a key may take to be loaded.
const DEADLINE: Duration = Duration::from_secs(20);

/// The agents' sockets by id. They end when this is dropped.
pub(super) struct Agents {
    pub(super) sockets: BTreeMap<String, PathBuf>,
    _own: Vec<Child>,
    folder: PathBuf,
}

impl Agents {
    /// `folder` is this build's alone.
    pub(super) async fn start(
        settings: &BTreeMap<String, Secret>,
        folder: PathBuf,
    ) -> Result<Self, BuildError> {
        let mut agents = Self {
            sockets: BTreeMap::new(),
            _own: Vec::new(),
            folder,
        };
        for (place, (id, from)) in settings.iter().enumerate() {
            let wrong = |why: String| BuildError::Input {
                key: format!("ssh.{id}"),
                why,
            };
            let socket = match from {
                Secret::Env(_) => {
                    let path = from.read_text().map_err(|error| wrong(error.to_string()))?;
                    running(Path::new(&path)).map_err(wrong)?
                }
                Secret::File(path) if is_socket(path) => path.clone(),
                Secret::File(path) => {
                    let socket = agents.folder.join(place.to_string());
                    let child = own(path, &socket, &agents.folder).await.map_err(wrong)?;
                    agents._own.push(child);
                    socket
                }
            };
            agents.sockets.insert(id.clone(), socket);
        }
        Ok(agents)
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn running(path: &Path) -> Result<PathBuf, String> {
    match is_socket(path) {
        true => Ok(path.to_owned()),
        false => Err(format!("`{}` is not an SSH agent's socket", path.display())),
    }
}

/// An agent with one key.
async fn own(key: &Path, socket: &Path, folder: &Path) -> Result<Child, String> {
    let key = ssh_key::open(key)?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            "`ssh-agent` is not installed on this server (Debian: `openssh-client`)".to_owned()
        }
        _ => format!("`ssh-agent` cannot be run: {error}"),
    };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("`{}` cannot be made: {error}", folder.display()))?;
    let _ = fs::remove_file(socket);
    let mut command = Command::new("ssh-agent");
    (command.arg("-a").arg(socket))
        .args(["sh", "-c", HOLD, "sh"])
        .arg(&key.path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(failed)?;
    let mut line = String::new();
    let read = async {
        match child.stdout.take() {
            Some(stdout) => BufReader::new(stdout).read_line(&mut line).await,
            None => Ok(0),
        }
    };
    let read = tokio::time::timeout(DEADLINE, read).await;
    if matches!(read, Ok(Ok(_))) && line.trim() == READY {
        return Ok(child);
    }
    drop(child.stdin.take());
    let _ = child.start_kill();
    let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let said = ended
        .ok()
        .and_then(Result::ok)
        .map(|it| String::from_utf8_lossy(&it.stderr).trim().to_owned());
    let said = said.filter(|said| !said.is_empty());
    Err(format!(
        "`ssh-add` does not take the key: {}",
        said.as_deref().unwrap_or("it does not say why")
    ))
}
