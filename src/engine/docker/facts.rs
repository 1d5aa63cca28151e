//! What an engine says of itself and of its machine, which does not change until it is started again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bollard::models::{
    SystemInfo, SystemInfoCgroupDriverEnum as Driver, SystemInfoCgroupVersionEnum as Version,
};

use super::{ANSWER, Docker, Result, folders};

/// From which version on its BuildKit takes `cgroup-parent`.
const PLACES_BUILDS: u32 = 23;

/// How long one that does not describe itself is not asked again.
const AGAIN: Duration = Duration::from_secs(60);

pub(super) struct Facts {
    /// The folders of its files.
    pub(super) folders: Vec<PathBuf>,
    /// It keeps with an image what says how it was built and what it contains.
    pub(super) attests: bool,
    pub(super) groups: Groups,
    pub(super) platform: Option<String>,
}

/// What it said of itself, and when.
pub(super) struct Said {
    facts: Arc<Facts>,
    /// Which of its starts that was after.
    start: u64,
    /// When it was asked last.
    asked: Instant,
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
    /// Asked once for each start of the engine: it takes seconds to answer where it has much to count. Until it
    /// answers again, what it has said before holds.
    pub(super) async fn facts(&self) -> Result<Arc<Facts>> {
        let mut known = self.facts.lock().await;
        let start = self.starts.load(Ordering::Relaxed);
        let is_fresh = |it: &Said| it.start == start || it.asked.elapsed() < AGAIN;
        if let Some(said) = known.as_ref().filter(|it| is_fresh(it)) {
            return Ok(said.facts.clone());
        }
        let info = self.client()?.with_timeout(ANSWER).info().await;
        let info = match (info, &mut *known) {
            (Ok(info), _) => info,
            (Err(_), Some(said)) => {
                said.asked = Instant::now();
                return Ok(said.facts.clone());
            }
            (Err(error), None) => return Err(self.failed("describe itself")(error)),
        };
        let facts = Arc::new(Facts {
            folders: folders::folders(&info),
            attests: folders::has_store(&info),
            groups: groups(&info),
            platform: platform(info.os_type, info.architecture),
        });
        *known = Some(Said {
            facts: facts.clone(),
            start,
            asked: Instant::now(),
        });
        Ok(facts)
    }

    /// It may have been started again, with other settings.
    pub fn started_again(&self) {
        self.starts.fetch_add(1, Ordering::Relaxed);
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
