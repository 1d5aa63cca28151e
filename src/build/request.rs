//! What a build needs to know.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;

use super::Inputs;
use super::bases::declared;
use crate::config::{self, Pull};
use crate::ids::AppName;
use crate::source::{Commit, Mirror};
use crate::store::images::Recorded;

/// What is to be built.
pub struct Request<'a> {
    pub app: &'a AppName,
    pub commit: &'a Commit,
    /// The image in a registry, with its digest, that takes the place of a commit's files.
    pub from: Option<&'a str>,
    pub settings: &'a config::Build,
    pub inputs: &'a Inputs,
    /// The branch or tag that the commit was pushed to.
    pub branch: &'a str,
    /// The whole name of that, as the deployment has it.
    pub git_ref: &'a str,
    pub mirror: &'a Mirror,
    /// `name:tag`, at least one. The last belongs to this build alone and points to the image
    /// afterwards; the ones before it move to whatever was built last.
    pub tags: Vec<String>,
    /// The labels by which the engine finds the images of this agent; the same for every deployment of the app.
    pub labels: HashMap<String, String>,
    /// Builds even if an image of this content exists, and runs every step.
    pub no_cache: bool,
    /// When the registries are asked for the base images.
    pub pull: Pull,
    /// The images that were built before, by cache key. No other image is reused: labels do not
    /// identify one, as an image built from one of ours inherits them.
    pub recorded: HashMap<String, Recorded>,
}

impl Request<'_> {
    /// The arguments of the build, with those of Cutover's own that the Dockerfile declares. An image whose
    /// Dockerfile declares none is the same for every commit with the same files.
    pub(super) fn args(&self, dockerfile: &str) -> BTreeMap<String, String> {
        let declared = declared(dockerfile);
        let own = self.own_args().into_iter();
        let own = own.filter(|(name, _)| declared.contains(*name));
        let mut args: BTreeMap<_, _> = own.map(|(name, value)| (name.to_owned(), value)).collect();
        args.extend(self.inputs.args.clone());
        args
    }

    pub(super) fn own_args(&self) -> [(&'static str, String); 6] {
        let commit = self.commit.id.to_string();
        let time = self.commit.time.unix_timestamp().max(0);
        [
            ("SOURCE_COMMIT", commit.clone()),
            ("SOURCE_BRANCH", self.branch.to_owned()),
            ("SOURCE_DATE_EPOCH", time.to_string()),
            // As every instance has them.
            ("CUTOVER_APP", self.app.to_string()),
            ("CUTOVER_COMMIT", commit),
            ("CUTOVER_REF", self.git_ref.to_owned()),
        ]
    }

    /// What the builder finds its copy of a context's files by, which it keeps for each agent and app.
    pub(super) fn shared_key(&self, context: &str) -> String {
        let labels: BTreeMap<_, _> = self.labels.iter().collect();
        let of = format!("{} {context} {labels:?}", self.app);
        hex::encode(Sha256::digest(of))
    }

    /// The image's labels, with where it comes from by the names of the OCI's annotations, except for those
    /// that the Dockerfile mentions itself. All of it follows from the commit, the date too, so that a commit
    /// that is built twice keeps its image id. An image of a registry has its own.
    pub(super) fn image_labels(&self, dockerfile: &str) -> HashMap<String, String> {
        let mut labels = self.labels.clone();
        if self.from.is_some() {
            return labels;
        }
        let commit = &self.commit.id;
        let tag = self.git_ref.strip_prefix("refs/tags/");
        let mut add = |name: &str, value: &str| {
            let name = format!("org.opencontainers.image.{name}");
            if !dockerfile.contains(&name) {
                labels.insert(name, value.to_owned());
            }
        };
        add("revision", commit.as_str());
        if let Some(address) = self.mirror.address() {
            add("source", &address);
        }
        add("ref.name", self.branch);
        add("version", tag.unwrap_or(commit.short()));
        if let Ok(time) = self.commit.time.format(&Rfc3339) {
            add("created", &time);
        }
        labels
    }
}
