//! What the server consists of, and whether it is well.

use std::io;
use std::path::Path;

use super::instances::size;
use crate::api::Api;
use crate::deploy::space::Space;
use crate::engine;

/// One line of the look at the server.
pub struct Check {
    pub class: &'static str,
    pub name: &'static str,
    pub text: String,
}

pub async fn checks(api: &Api) -> Vec<Check> {
    let config = api.agent.in_force();
    let config = &config.config;
    let (docker, proxy) = tokio::join!(
        engine::version(&config.docker.host),
        api.agent.proxy.hello()
    );
    let is = |good: bool| if good { "good" } else { "bad" };
    let docker = Check {
        class: is(docker.is_ok()),
        name: "Docker",
        text: match docker {
            Ok(version) => format!("{} (API {})", version.engine, version.api),
            Err(error) => error.to_string(),
        },
    };
    let own = env!("CARGO_PKG_VERSION");
    let proxy = match proxy {
        Ok(hello) => Check {
            class: if hello.version == own { "good" } else { "warn" },
            name: "Proxy",
            text: format!(
                "version {}, process {}, route table {}",
                hello.version, hello.pid, hello.generation
            ),
        },
        Err(error) => Check {
            class: "bad",
            name: "Proxy",
            text: error.to_string(),
        },
    };
    let agent = Check {
        class: "good",
        name: "Agent",
        text: format!("version {own}, process {}", std::process::id()),
    };
    let mut checks = vec![agent, proxy, docker];
    let own = &config.agent.data_dir;
    checks.push(disk("Disk", own, Space::of(own)));
    let folders = api.agent.engine.folders().await.unwrap_or_default();
    checks.extend(folders.iter().filter_map(|it| docker_s_disk(it)));
    checks.extend(memory());
    checks
}

/// Of the machine, and of the agent.
fn memory() -> Option<Check> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let all = kib(&text, "MemTotal:")? << 10;
    let free = kib(&text, "MemAvailable:")? << 10;
    let own = std::fs::read_to_string("/proc/self/status").ok();
    let own = own.and_then(|own| kib(&own, "VmRSS:"));
    let own = own.map(|own| format!("; the agent takes {}", size(own << 10)));
    Some(Check {
        class: if free < all / 20 { "bad" } else { "good" },
        name: "Memory",
        text: format!(
            "{} of {} available{}",
            size(free),
            size(all),
            own.unwrap_or_default()
        ),
    })
}

/// A folder that is not there says nothing: where a containerd keeps its images is a guess.
fn docker_s_disk(path: &Path) -> Option<Check> {
    match Space::of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        space => Some(disk("Docker's disk", path, space)),
    }
}

fn disk(name: &'static str, path: &Path, space: io::Result<Space>) -> Check {
    let (class, text) = match space {
        Ok(space) => {
            let class = if space.is_little() { "bad" } else { "good" };
            (class, format!("{space} in `{}`", path.display()))
        }
        Err(error) => ("bad", format!("`{}`: {error}", path.display())),
    };
    Check { class, name, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_docker_s_that_is_not_there_is_no_trouble() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(docker_s_disk(folder.path()).unwrap().name, "Docker's disk");
        assert!(docker_s_disk(&folder.path().join("nowhere")).is_none());
    }
}
