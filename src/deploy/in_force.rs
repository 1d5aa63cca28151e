//! The configuration in force, with what it tells the proxy. A reload replaces it as a whole; whatever
//! has taken a snapshot keeps it to its end.

use std::sync::Arc;

use super::Agent;
use super::forwarding::Forwarding;
use crate::config::{App, Config, Loaded};
use crate::ids::AppName;

pub struct InForce {
    pub config: Config,
    pub forwarding: Forwarding,
    /// The file that it was read from. Settings that need a restart are in `config` as they were at
    /// the start.
    pub loaded: Loaded,
}

impl InForce {
    /// Reads the files of the proxy's pages. Blocks.
    pub fn of(loaded: Loaded) -> Self {
        Self {
            config: loaded.config.clone(),
            forwarding: Forwarding::of(&loaded.config),
            loaded,
        }
    }

    /// The same, with the settings that need a restart taken from `running`.
    pub fn after(self, running: &Config) -> Self {
        Self {
            config: self.config.with_start_of(running),
            ..self
        }
    }
}

impl Agent {
    pub fn in_force(&self) -> Arc<InForce> {
        self.in_force.read().clone()
    }

    /// One app of the configuration in force.
    pub fn app(&self, name: &AppName) -> Option<Arc<App>> {
        self.in_force.read().config.apps.get(name).cloned()
    }
}
