//! What goes into a build besides the commit: arguments and secrets, read when it begins.

use std::collections::BTreeMap;

use super::BuildError;
use super::bases::declared;
use crate::config::{self, Value, env_file};
use crate::ids::AppName;
use crate::source::Commit;

/// The arguments that Cutover sets if the Dockerfile declares them. An image that does not declare them
/// is the same for every commit with the same files.
const SOURCE_COMMIT: &str = "SOURCE_COMMIT";
const SOURCE_BRANCH: &str = "SOURCE_BRANCH";
const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
/// As every instance has them.
const CUTOVER_APP: &str = "CUTOVER_APP";
const CUTOVER_COMMIT: &str = "CUTOVER_COMMIT";
const CUTOVER_REF: &str = "CUTOVER_REF";

/// Not `Debug`, so that no value can be logged.
#[derive(Default)]
pub struct Inputs {
    /// Values of arguments are in the image's history.
    pub args: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, Secret>,
}

/// What `RUN --mount=type=secret` mounts.
pub struct Secret {
    pub value: Vec<u8>,
    /// Another one for another value, and nothing that the value can be found out from.
    pub version: String,
}

impl Inputs {
    /// Reads them; `version` names the version of a secret from its id and value. Blocks.
    pub fn read(
        settings: &config::Build,
        version: impl Fn(&str, &[u8]) -> String,
    ) -> Result<Self, BuildError> {
        let wrong = |key: String, why: &dyn std::fmt::Display| BuildError::Input {
            key,
            why: why.to_string(),
        };
        let mut args = BTreeMap::new();
        if let Some(path) = &settings.args_file {
            args.extend(env_file::read(path).map_err(|error| wrong("args_file".into(), &error))?);
        }
        for (name, value) in &settings.args {
            let value = match value {
                Value::Text(text) => text.clone(),
                Value::From(secret) => {
                    let read = secret.read_text();
                    read.map_err(|error| wrong(format!("args.{name}"), &error))?
                }
            };
            args.insert(name.clone(), value);
        }
        let mut secrets = BTreeMap::new();
        for (id, from) in &settings.secrets {
            let value = from.read_whole();
            let value = value.map_err(|error| wrong(format!("secrets.{id}"), &error))?;
            let version = version(id, &value);
            secrets.insert(id.clone(), Secret { value, version });
        }
        Ok(Self { args, secrets })
    }

    /// The arguments with those that Cutover sets.
    pub(super) fn args(
        &self,
        dockerfile: &str,
        app: &AppName,
        commit: &Commit,
        [branch, git_ref]: [&str; 2],
    ) -> BTreeMap<String, String> {
        let declared = declared(dockerfile);
        let time = commit.time.unix_timestamp().max(0).to_string();
        let commit = commit.id.as_str();
        let own = [
            (SOURCE_COMMIT, commit),
            (SOURCE_BRANCH, branch),
            (SOURCE_DATE_EPOCH, &time),
            (CUTOVER_APP, app.as_str()),
            (CUTOVER_COMMIT, commit),
            (CUTOVER_REF, git_ref),
        ];
        let own = own.into_iter().filter(|(name, _)| declared.contains(*name));
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut args: BTreeMap<_, _> = own.collect();
        args.extend(self.args.clone());
        args
    }
}
