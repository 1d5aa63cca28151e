//! What an engine says of itself and of its machine, which does not change until it is started again.

use std::path::PathBuf;
use std::sync::Arc;

use bollard::models::{
    SystemInfo, SystemInfoCgroupDriverEnum as Driver, SystemInfoCgroupVersionEnum as Version,
};

use super::{ANSWER, Docker, Result, folders};

/// From which version on its BuildKit takes `cgroup-parent`.
const PLACES_BUILDS: u32 = 23;

pub(super) struct Facts {
    /// The folders of its files.
    pub(super) folders: Vec<PathBuf>,
    /// It keeps with an image what says how it was built and what it contains.
    pub(super) attests: bool,
    pub(super) groups: Groups,
    pub(super) platform: Option<String>,
}

/// How it groups processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    One,
    Two,
    /// Of systemd, by an engine that can be told where the steps of builds belong.
    Slice,
    /// Of systemd, by one that cannot, whose steps stand among the containers.
    Systemd,
    None,
}

impl Docker {
    /// Asked once: an engine takes seconds to answer where it has much to count.
    pub(super) async fn facts(&self) -> Result<Arc<Facts>> {
        let mut known = self.facts.lock().await;
        if let Some(facts) = &*known {
            return Ok(facts.clone());
        }
        let info = self.client()?.with_timeout(ANSWER).info().await;
        let info = info.map_err(self.failed("describe itself"))?;
        let facts = Arc::new(Facts {
            folders: folders::folders(&info),
            attests: folders::has_store(&info),
            groups: groups(&info),
            platform: platform(info.os_type, info.architecture),
        });
        *known = Some(facts.clone());
        Ok(facts)
    }

    /// It may have been started again, with other settings.
    pub async fn forget(&self) {
        self.facts.lock().await.take();
        self.build_limits.lock().await.take();
    }
}

fn groups(info: &SystemInfo) -> Groups {
    let major = info.server_version.as_deref().and_then(major);
    match (&info.cgroup_driver, &info.cgroup_version) {
        (Some(Driver::SYSTEMD), Some(Version::_2)) if major >= Some(PLACES_BUILDS) => Groups::Slice,
        (Some(Driver::SYSTEMD), _) => Groups::Systemd,
        (Some(Driver::CGROUPFS), Some(Version::_2)) => Groups::Two,
        (Some(Driver::CGROUPFS), _) => Groups::One,
        _ => Groups::None,
    }
}

/// `28` of `28.5.2+dfsg1`.
fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

/// `linux` on `x86_64` is `linux/amd64`. `None` for a machine whose name says too little.
fn platform(os: Option<String>, machine: Option<String>) -> Option<String> {
    let machine = machine?;
    let arch = match machine.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "armv7l" => "arm/v7",
        "armv6l" => "arm/v6",
        same @ ("riscv64" | "ppc64le" | "s390x") => same,
        _ => return None,
    };
    Some(format!("{}/{arch}", os?))
}
