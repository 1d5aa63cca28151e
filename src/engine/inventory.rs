//! What an engine has that carries an agent's labels. Labels make nothing ours; they help to find what a
//! lost record named.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::ids::{AppName, CommitId, DeploymentId, ReleaseId};

#[derive(Debug, Default)]
pub struct Inventory {
    pub containers: Vec<FoundContainer>,
    pub images: Vec<FoundImage>,
    /// Networks other than the agent's own.
    pub networks: Vec<FoundNetwork>,
    /// Volumes that no container uses.
    pub volumes: Vec<FoundVolume>,
}

#[derive(Debug, Clone)]
pub struct FoundContainer {
    pub id: String,
    pub name: String,
    pub app: Option<AppName>,
    pub deployment: Option<DeploymentId>,
    pub release: Option<ReleaseId>,
    pub commit: Option<CommitId>,
    /// See [`crate::store::ours::Ours::mark`].
    pub mark: Option<String>,
    pub image_id: String,
    /// In milliseconds since 1970.
    pub created_at: i64,
    pub running: bool,
    /// The addresses that it has or is to have on any network.
    pub addresses: Vec<IpAddr>,
    /// Its anonymous volumes: the name and path of each.
    pub volumes: Vec<(String, String)>,
    /// The names of the networks that it is connected to.
    pub networks: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct FoundImage {
    pub id: String,
    /// Its names that have the form that Cutover gives, those by commit first: people know it by them.
    pub names: Vec<ImageName>,
    pub app: Option<AppName>,
    pub created_at: i64,
    /// In bytes; layers that other images share are counted too.
    pub size: u64,
}

/// `cutover/APP:` and the first twelve digits of a commit, or a deployment's id, also with what the image is
/// for (`-test`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    pub full: String,
    pub app: AppName,
    pub tag: ImageTag,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageTag {
    /// Points to what was built last from this commit.
    Commit(String),
    /// Given by this deployment alone.
    Deployment(DeploymentId),
}

impl ImageName {
    /// `None` if the name has another form: then a person gave it.
    pub fn parse(full: &str) -> Option<Self> {
        let (app, tag) = full.strip_prefix("cutover/")?.split_once(':')?;
        let is_commit = tag.len() == 12 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let tag = match is_commit {
            true => ImageTag::Commit(tag.to_owned()),
            false => {
                let (id, _) = tag.split_once('-').unwrap_or((tag, ""));
                ImageTag::Deployment(id.parse().ok()?)
            }
        };
        Some(Self {
            full: full.to_owned(),
            app: app.parse().ok()?,
            tag,
        })
    }
}

#[derive(Debug, Clone)]
pub struct FoundNetwork {
    pub id: String,
    pub name: String,
    pub created_at: i64,
    /// The names of the containers that are connected to it, running or not.
    pub containers: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct FoundVolume {
    pub name: String,
    /// Where it was mounted, if it says so.
    pub path: Option<String>,
    pub app: Option<AppName>,
    pub release: Option<ReleaseId>,
    pub created_at: i64,
}

/// What inspecting a container reveals, to record its release again.
#[derive(Debug, Clone)]
pub struct Details {
    pub running: bool,
    /// Whether the engine restarts it after a reboot, as only what is live.
    pub keeps_running: bool,
    /// Its address on the agent's own network.
    pub address: Option<IpAddr>,
    /// The environment that it was given, without what is its image's own.
    pub env: BTreeMap<String, String>,
    /// What it runs in place of its image's own command.
    pub command: Option<Vec<String>>,
    pub memory: Option<u64>,
    pub cpus: Option<f64>,
    pub stop_grace: Duration,
    /// How much it has written, in bytes, other than to volumes.
    pub size: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_person_gave_has_no_tag_of_ours() {
        let commit = ImageName::parse("cutover/hello:8f3c2a9d41b0").unwrap();
        assert_eq!(commit.tag, ImageTag::Commit("8f3c2a9d41b0".into()));
        let id = DeploymentId::new();
        let own = ImageName::parse(&format!("cutover/hello:{id}")).unwrap();
        assert_eq!(own.tag, ImageTag::Deployment(id.clone()));
        let more = ImageName::parse(&format!("cutover/hello:{id}-context-0-lib")).unwrap();
        assert_eq!(more.tag, ImageTag::Deployment(id));
        assert_eq!(own.app.as_str(), "hello");
        for name in [
            "cutover/hello:keep",
            "cutover/hello",
            "hello:8f3c2a9d41b0",
            "cutover/a/b:8f3c2a9d41b0",
        ] {
            assert_eq!(ImageName::parse(name), None, "{name}");
        }
    }
}
