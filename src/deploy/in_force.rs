//! What the agent goes by at this moment: the configuration, and what it says to the proxy. Replaced
//! whole by a reload; what has taken a snapshot keeps it to its end.

use std::sync::Arc;

use super::Agent;
use super::forwarding::Forwarding;
use crate::config::{App, Config, Loaded};
use crate::ids::AppName;

pub struct InForce {
    pub config: Config,
    pub forwarding: Forwarding,
    /// The file that it comes from. What takes a restart stands in `config` as it was at the start.
    pub loaded: Loaded,
}

impl InForce {
    /// Reads the pages' files. Blocks.
    pub fn of(loaded: Loaded) -> Self {
        Self {
            config: loaded.config.clone(),
            forwarding: Forwarding::of(&loaded.config),
            loaded,
        }
    }

    /// With what takes a restart as it is in `running`.
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
