//! What goes into a build besides the commit: arguments and secrets, read when it begins.

use std::collections::BTreeMap;

use super::BuildError;
use crate::config::{self, Value, env_file};

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
}
