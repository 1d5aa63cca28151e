//! The limits of builds where systemd owns the control groups: those of a slice that steps are told to be in.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::engine::BuildLimits;

/// Without a dash, which would make it a part of another slice: weights count only among the groups beside it,
/// and there the apps are in `system.slice`.
pub(super) const SLICE: &str = "cutover_builds.slice";

/// Where steps run, as BuildKit wants it, if the slice is there.
pub(in crate::engine::docker) fn parent(root: &Path) -> Option<String> {
    root.join(SLICE).is_dir().then(|| format!("/{SLICE}"))
}

/// Gives the slice its limits until the next boot, also through `systemctl daemon-reload`. `limits`: absent, only
/// the order is set in which the machine is shared.
pub(super) async fn apply(weight: &str, limits: Option<BuildLimits>) -> Result<(), String> {
    systemctl(&set_property(weight, limits)).await?;
    // In place of what runc would make there by itself, without limits.
    systemctl(&["start".to_owned(), SLICE.to_owned()]).await
}

fn set_property(weight: &str, limits: Option<BuildLimits>) -> Vec<String> {
    let mut all = ["set-property", "--runtime", SLICE]
        .map(str::to_owned)
        .to_vec();
    all.extend(["CPUWeight", "IOWeight"].map(|it| format!("{it}={weight}")));
    let Some(limits) = limits else {
        return all;
    };
    let memory = limits.memory.map(|bytes| bytes.to_string());
    all.push(format!(
        "MemoryMax={}",
        memory.as_deref().unwrap_or("infinity")
    ));
    let swap = limits.memory.map_or("infinity", |_| "0");
    all.push(format!("MemorySwapMax={swap}"));
    // The kernel takes no less than a hundredth.
    let quota = limits
        .cpus
        .map(|cpus| format!("{:.0}%", (cpus * 100.0).max(1.0)));
    all.push(format!("CPUQuota={}", quota.unwrap_or_default()));
    all
}

async fn systemctl(arguments: &[String]) -> Result<(), String> {
    let mut command = Command::new("systemctl");
    command
        .arg("--no-ask-password")
        .args(arguments)
        .env("LC_ALL", "C");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("systemctl {}", arguments.join(" "));
    let output = command.output().await;
    let output = output.map_err(|error| format!("`{shown}` cannot be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or_default();
    Err(format!(
        "`{shown}` failed: {said}: to limit builds, run the agent as root and not in a container"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_is_asked_in_its_own_words() {
        let asked = |limits| set_property("12", limits)[3..].join(" ");
        assert_eq!(asked(None), "CPUWeight=12 IOWeight=12");
        let limits = BuildLimits {
            memory: Some(1 << 30),
            cpus: Some(1.5),
        };
        assert_eq!(
            asked(Some(limits)),
            "CPUWeight=12 IOWeight=12 MemoryMax=1073741824 MemorySwapMax=0 CPUQuota=150%"
        );
        // Taken back.
        assert_eq!(
            asked(Some(BuildLimits::default())),
            "CPUWeight=12 IOWeight=12 MemoryMax=infinity MemorySwapMax=infinity CPUQuota="
        );
    }

    #[test]
    fn steps_are_put_only_into_a_slice_that_is_there() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(parent(root.path()), None);
        std::fs::create_dir(root.path().join(SLICE)).unwrap();
        assert_eq!(
            parent(root.path()).as_deref(),
            Some("/cutover_builds.slice")
        );
    }
}
