//! What should serve, as the database has it.

use std::sync::Arc;

use crate::deploy::Agent;
use crate::engine::{Endpoint, Result};
use crate::store::instances::{self, Instance};
use crate::store::releases::Release;
use crate::store::volumes::Volume;

/// An instance that should serve.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) instance: Instance,
    pub(super) release: Arc<Release>,
    /// The anonymous volumes that it had when it was last looked at.
    pub(super) volumes: Arc<[Volume]>,
}

/// Records where an instance accepts connections.
pub(super) async fn record(
    agent: &Agent,
    instance: &Instance,
    endpoint: Option<Endpoint>,
) -> Result<()> {
    let name = instance.name.clone();
    let set = move |db: &_| instances::set_endpoint(db, &name, endpoint);
    Ok(agent.store.write(set).await?)
}
