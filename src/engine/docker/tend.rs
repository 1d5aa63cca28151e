//! Keeps live instances running: inspects them and brings them back.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{
    EndpointIpamConfig, EndpointSettings, EventMessage, EventMessageTypeEnum, Mount, MountPoint,
    MountType, NetworkConnectRequest,
};
use bollard::query_parameters::{
    EventsOptionsBuilder, RemoveContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::instance::{HOST_NETWORK, environment_of, mounts_of};
use super::{Docker, EngineError, Result, gone_is_done, label, status_code};
use crate::engine::{Endpoint, InstanceSpec, Look, Run};
use crate::store::ours::Ours;

/// The events after which an instance may need to be repaired, or has just recovered.
const EVENTS: [&str; 9] = [
    "die",
    "destroy",
    "start",
    "pause",
    "unpause",
    "rename",
    "connect",
    "disconnect",
    "restart",
];

/// Whether Docker itself gave a volume this name: 64 hexadecimal digits.
pub(super) fn is_anonymous(volume: &str) -> bool {
    volume.len() == 64 && volume.bytes().all(|it| it.is_ascii_hexdigit())
}

/// The anonymous volumes: the name and path of each.
fn anonymous(mounts: Vec<MountPoint>) -> Vec<(String, String)> {
    let volumes = mounts.into_iter();
    let volumes = volumes.filter(|it| it.typ.as_deref() == Some("volume"));
    volumes
        .filter_map(|it| Some((it.name?, it.destination?)))
        .filter(|(name, _)| is_anonymous(name))
        .collect()
}

impl Docker {
    pub async fn look(&self, ours: &Ours) -> Result<Look> {
        let Some(found) = self.find(ours).await? else {
            return Ok(Look::default());
        };
        let state = found.state.unwrap_or_default();
        let is = |flag: Option<bool>| flag == Some(true);
        let run = if is(state.restarting) {
            Run::Restarting
        } else if is(state.paused) {
            Run::Paused
        } else if is(state.running) {
            Run::Running
        } else {
            Run::Exited
        };
        let mode = found.host_config.and_then(|it| it.network_mode);
        let networks = found.network_settings.and_then(|it| it.networks);
        let ours = self.own_endpoint(networks.unwrap_or_default());
        let address = match mode.as_deref() {
            Some(HOST_NETWORK) => Some(Ipv4Addr::LOCALHOST.into()),
            _ => ours.and_then(|it| it.ip_address?.parse().ok()),
        };
        Ok(Look {
            run,
            address,
            restarts: found.restart_count.unwrap_or(0),
            exit_code: state.exit_code.unwrap_or(0),
            out_of_memory: is(state.oom_killed),
            volumes: anonymous(found.mounts.unwrap_or_default()),
        })
    }

    pub async fn ended(&self, ours: &Ours) -> Result<()> {
        let Some(id) = self.id(ours).await? else {
            return Ok(());
        };
        let options = WaitContainerOptionsBuilder::new().condition("not-running");
        let docker = self.client()?;
        let mut wait = std::pin::pin!(docker.wait_container(&id, Some(options.build())));
        match wait.next().await {
            Some(Err(error)) if status_code(&error) == Some(404) => Ok(()),
            // An exit code other than 0 comes as an error.
            Some(Ok(_) | Err(bollard::errors::Error::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => Err(self
                .failed(format!("wait for the container `{}`", ours.name))(
                error
            )),
            None => Err(EngineError::Stopped("Docker ended the wait".into())),
        }
    }

    pub async fn unpause(&self, ours: &Ours) -> Result<()> {
        let Some(id) = self.id(ours).await? else {
            return Ok(());
        };
        let result = gone_is_done(self.client()?.unpause_container(&id).await);
        result.map_err(self.failed(format!("unpause the container `{}`", ours.name)))
    }

    pub async fn rejoin(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        let network = self.network(&spec.instance.app).await?;
        let name = &spec.instance.name;
        let _one = self.addresses.lock().await;
        let address = self.free_address(spec, &network).await?;
        let Some(id) = self.id(&spec.instance.ours()).await? else {
            return Err(EngineError::Stopped(format!(
                "`{name}` is not there any more"
            )));
        };
        let request = NetworkConnectRequest {
            container: id,
            endpoint_config: Some(EndpointSettings {
                ipam_config: Some(EndpointIpamConfig {
                    ipv4_address: Some(address.to_string()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        };
        let joined = self.client()?.connect_network(&network.name, request).await;
        joined.map_err(self.failed(format!("connect the container `{name}` to its network")))?;
        Ok(spec.service.port.map(|port| Endpoint::new(address, port)))
    }

    pub async fn remake(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        let ours = spec.instance.ours();
        // Before the old one is gone.
        let named = mounts_of(environment_of(spec)?);
        let mut mounts = Vec::new();
        if let Some(found) = self.find(&ours).await? {
            let volumes = found.mounts.unwrap_or_default().into_iter();
            let volumes = volumes.filter(|it| it.typ.as_deref() == Some("volume"));
            // The others are those of the service, which every container of it gets.
            let anonymous =
                volumes.filter(|it| !named.iter().any(|new| new.target == it.destination));
            mounts.extend(anonymous.map(|volume| Mount {
                typ: Some(MountType::VOLUME),
                source: volume.name,
                target: volume.destination,
                ..Default::default()
            }));
            // The volumes are kept: the data that the app has stored there must not be lost.
            let options = RemoveContainerOptionsBuilder::new().force(true).v(false);
            let id = found.id.unwrap_or_default();
            let docker = self.client()?;
            let removed = docker.remove_container(&id, Some(options.build())).await;
            gone_is_done(removed)
                .map_err(self.failed(format!("remove the container `{}`", ours.name)))?;
        }
        self.start_with(spec, mounts).await
    }

    /// Yields after each event that may concern one of the agent's instances; ends when the
    /// connection to the engine is lost.
    pub fn events(&self) -> Result<BoxStream<'static, ()>> {
        let docker = self.client()?;
        let filters = HashMap::from([
            ("type", vec!["container", "network"]),
            ("event", EVENTS.to_vec()),
        ]);
        let options = EventsOptionsBuilder::new().filters(&filters).build();
        let this = self.clone();
        let events = docker.events(Some(options));
        let good = events.take_while(|event| std::future::ready(event.is_ok()));
        let concerns = move |event: EventMessage| {
            let attributes = event.actor.and_then(|it| it.attributes).unwrap_or_default();
            let has = |key: &str, value: &str| attributes.get(key).is_some_and(|it| it == value);
            let ours = match event.typ {
                Some(EventMessageTypeEnum::NETWORK) => {
                    let name = attributes.get("name");
                    name.is_some_and(|name| this.is_own_network(name))
                }
                // An adopted container may have been made by an agent whose id is lost.
                _ => has(label::AGENT, this.agent.as_str()) || has(label::DATA_DIR, &this.data_dir),
            };
            std::future::ready(ours.then_some(()))
        };
        let good = good.filter_map(|event| std::future::ready(event.ok()));
        Ok(good.filter_map(concerns).boxed())
    }

    /// An address for the instance: the one it had if no other container has it, or else a free
    /// one. An error if there is none.
    pub(super) async fn free_address(
        &self,
        spec: &InstanceSpec<'_>,
        network: &super::Network,
    ) -> Result<IpAddr> {
        let instance = spec.instance;
        let mut taken = self.addresses(network, &instance.name).await?;
        let others = (spec.recorded.iter()).filter(|it| Some(**it) != instance.endpoint);
        taken.extend(others.map(Endpoint::ip));
        let had = instance.endpoint.map(|endpoint| endpoint.ip());
        network
            .choose(had, &taken)
            .ok_or_else(|| EngineError::Refused {
                what: format!("give the container `{}` an address", instance.name),
                cause: format!("none is left in the network `{}`", network.name),
            })
    }
}
