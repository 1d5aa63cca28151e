//! Installs Debian packages with apt-get.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::Error;

/// Installs `docker.io` and `iptables` if they are missing. Returns whether it had to.
pub async fn missing_packages(say: &impl Fn(&str)) -> Result<bool, Error> {
    // dockerd sets up its networks with iptables, which docker.io only recommends.
    let programs = [("dockerd", "docker.io"), ("iptables", "iptables")];
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let names = missing.join(" and ");
    if !has_apt() {
        return Err(Error::usage(format!(
            "{names} must be installed, and this machine has no apt-get"
        ))
        .hint(
            "install Docker Engine (https://docs.docker.com/engine/install/) and run this again",
        ));
    }
    say(&format!("installing {names} with apt-get"));
    // Stale package lists only matter if the installation then fails.
    let updated = command("apt-get", &["update", "-q"]).await;
    let mut install = vec![
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
        "-oDPkg::Lock::Timeout=300",
    ];
    install.extend(missing);
    match command("apt-get", &install).await {
        Ok(()) => Ok(true),
        Err(error) => match updated {
            Ok(()) => Err(error),
            Err(update) => Err(error.because(&update)),
        },
    }
}

/// Whether this is Debian or a distribution derived from it.
pub fn has_apt() -> bool {
    find("apt-get").is_some()
}

/// Runs a program to its end. If it fails, the error contains its last lines of output.
pub async fn command(program: &str, arguments: &[&str]) -> Result<(), Error> {
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("PATH", path())
        .stdin(Stdio::null())
        .kill_on_drop(false)
        .output()
        .await
        .map_err(|error| Error::usage(format!("failed to run `{shown}`")).because(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
    Err(Error::usage(format!(
        "`{shown}` failed ({}):\n  {last}",
        output.status
    )))
}

/// The path of a program, which may be one for administrators.
pub fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path())
        .map(|folder| folder.join(program))
        .find(|path| Path::is_file(path))
}

/// PATH together with the administrator's folders, which a plain `su` leaves out.
pub fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
}
