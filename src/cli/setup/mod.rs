//! `cutover setup`, also used by the demo and the tests: provides a Docker Engine on this machine.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::{Error, Global, configuration, print};
use crate::engine;

mod dockerd;
mod install;
mod lock;

/// Docker's default address, used if none is configured.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// How long an engine may take to answer after its start.
const START: Duration = Duration::from_secs(60);

/// Install and start Docker Engine if it is not running (Debian and Ubuntu, as root)
#[derive(Debug, Args)]
pub struct Setup {}

/// What had to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// An engine was already answering.
    Already,
    /// An engine that had been installed, or was starting, answers now.
    Started,
    /// Installed and started.
    Installed,
}

/// Ensures that an engine answers at the configured `docker.host`, or at Docker's default address if
/// there is no configuration yet.
pub async fn run(_: Setup, global: &Global) -> Result<(), Error> {
    let host = match configuration::load_if_any(global)? {
        Some((_, config)) => config.docker.host,
        None => DEFAULT_HOST.to_owned(),
    };
    let said = match ensure(&host, |step| eprintln!("{step}")).await? {
        Ready::Already => "was already running",
        Ready::Started => "is now running",
        Ready::Installed => "is now installed and running",
    };
    print::line(format_args!("Docker Engine {said} at `{host}`"));
    Ok(())
}

/// Ensures that a Docker Engine answers at `host`, and installs and starts one if that is allowed. Does
/// nothing if one answers already, and may be called by several processes at once. `say` is called for
/// each step that takes time.
pub async fn ensure(host: &str, say: impl Fn(&str)) -> Result<Ready, Error> {
    if answers(host).await {
        return Ok(Ready::Already);
    }
    if !matches!(host, DEFAULT_HOST | "unix:///run/docker.sock") {
        return Err(Error::usage(format!(
            "no Docker Engine answers at `docker.host` = `{host}`"
        ))
        .hint(format!(
            "start it there, or use `{DEFAULT_HOST}`, which `cutover setup` can set up"
        )));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Error::usage(format!(
            "no Docker Engine answers at `{host}`, or this user has no permission to use it"
        ))
        .hint(by_hand()));
    }
    let _lock = lock::take().await?;
    if answers(host).await {
        return Ok(Ready::Started);
    }
    let installed = install::missing_packages(&say).await?;
    start(host, &say).await?;
    Ok(if installed {
        Ready::Installed
    } else {
        Ready::Started
    })
}

/// Whether an engine answers at `host` now. A busy engine has five seconds to answer.
pub async fn answers(host: &str) -> bool {
    engine::version(host).await.is_ok()
}

async fn start(host: &str, say: &impl Fn(&str)) -> Result<(), Error> {
    if Path::new("/run/systemd/system").is_dir() {
        say("starting Docker with systemd");
        install::command("systemctl", &["start", "docker"]).await?;
        return dockerd::wait_until_it_answers(host, None).await;
    }
    dockerd::start(host, say).await
}

fn by_hand() -> String {
    let steps = if install::has_apt() {
        "sudo apt-get update && sudo apt-get install -y docker.io iptables"
    } else {
        "install Docker Engine: https://docs.docker.com/engine/install/"
    };
    format!(
        "run these once, then log in again:\n\
         \n    {steps}\
         \n    sudo systemctl start docker     # without systemd: sudo dockerd &\
         \n    sudo usermod -aG docker \"$USER\"\n\
         \nor run this command as root to have the first two done for you"
    )
}
