//! Cutover's own networks: one for each app, so that none reaches another's instances; with explicit
//! subnets, since Docker has room for only about 31 networks with subnets of its own choice.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use bollard::models::{
    EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
};
use bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder};
use ipnet::Ipv4Net;

use super::{Docker, EngineError, Result, gone_is_done, host_routes, label, status_code};
use crate::engine::AppNetwork;
use crate::ids::AppName;

/// The network that an app's containers are on.
#[derive(Debug, Clone)]
pub struct Network {
    pub name: String,
    base: u32,
}

impl Network {
    /// The address for an instance: the one it had, or else the first free one; `None` if all are
    /// taken. The upper quarter of the subnet is left to Docker, for containers whose address does
    /// not matter.
    pub fn choose(&self, had: Option<IpAddr>, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        let all = (4..768).map(|host| IpAddr::V4(Ipv4Addr::from(self.base + host)));
        let mut had_first = had
            .into_iter()
            .filter(|it| all.clone().any(|ours| ours == *it))
            .chain(all.clone());
        had_first.find(|address| !taken.contains(address))
    }
}

impl Docker {
    /// The app's network and this machine's address on it.
    pub async fn network_of(&self, app: &AppName) -> Result<AppNetwork> {
        let network = self.network(app).await?;
        let of_machine = Ipv4Addr::from(network.base + 1);
        Ok(AppNetwork {
            subnet: Ipv4Net::new_assert(of_machine, 22).trunc(),
            name: network.name,
            gateway: of_machine,
        })
    }

    /// The app's network, created if it does not exist.
    pub async fn network(&self, app: &AppName) -> Result<Network> {
        self.network_named(self.network_name(app), app).await
    }

    /// The network of the app's test, likewise.
    pub(super) async fn test_network(&self, app: &AppName) -> Result<Network> {
        self.network_named(self.test_network_name(app), app).await
    }

    async fn network_named(&self, name: String, app: &AppName) -> Result<Network> {
        let docker = self.client()?;
        let _one = self.network.lock().await;
        let seed = name.bytes().fold(7u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        // 4096 subnets of 1024 addresses in 10.192.0.0/10, which overlaps neither Docker's defaults nor
        // the usual ranges of home and office networks; each agent starts at a different one.
        let ranges = (0..4096).map(|n| {
            let index = seed.wrapping_add(n) % 4096;
            u32::from(Ipv4Addr::new(10, 192, 0, 0)) + index * 1024
        });
        let routes = host_routes::networks();
        let is_free = |base: &u32| {
            let subnet = Ipv4Net::new_assert(Ipv4Addr::from(*base), 22);
            !routes
                .iter()
                .any(|route| host_routes::overlap(route, &subnet))
        };
        let mut free: Vec<u32> = ranges.clone().filter(is_free).take(64).collect();
        if free.is_empty() {
            free = ranges.take(64).collect();
        }
        for base in free {
            match docker.inspect_network(&name, None).await {
                Ok(found) => return self.existing(name, found),
                Err(error) if status_code(&error) == Some(404) => {}
                Err(error) => return Err(self.failed("look at its network")(error)),
            }
            let mut labels = self.labels();
            labels.insert(label::APP.into(), app.to_string());
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".into()),
                ipam: Some(Ipam {
                    config: Some(vec![IpamConfig {
                        subnet: Some(format!("{}/22", Ipv4Addr::from(base))),
                        ip_range: Some(format!("{}/24", Ipv4Addr::from(base + 768))),
                        gateway: Some(Ipv4Addr::from(base + 1).to_string()),
                        ..Default::default()
                    }]),
                    ..Default::default()
                }),
                labels: Some(labels),
                ..Default::default()
            };
            match docker.create_network(request).await {
                Ok(_) => return Ok(Network { name, base }),
                // The subnet is in use, or the network was just created by another process: look again.
                Err(error) if matches!(status_code(&error), Some(403 | 409)) => {}
                Err(error) => return Err(self.failed("make its network")(error)),
            }
        }
        Err(EngineError::Refused {
            what: "make its network".into(),
            cause: "no free subnet was found in 10.192.0.0/10".into(),
        })
    }

    /// Connects a container to networks of others, unless it is on them already.
    pub async fn join(&self, container: &str, networks: &[String]) -> Result<()> {
        if networks.is_empty() {
            return Ok(());
        }
        let docker = self.client()?;
        let found = docker.inspect_container(container, None).await;
        let found = found.map_err(self.failed(format!("inspect the container `{container}`")))?;
        let on = found.network_settings.and_then(|it| it.networks);
        let on = on.unwrap_or_default();
        for network in networks.iter().filter(|it| !on.contains_key(*it)) {
            let what =
                || format!("connect `{container}` to the network `{network}` of `run.networks`");
            let request = NetworkConnectRequest {
                container: container.to_owned(),
                endpoint_config: None,
            };
            // Docker connects a container that is not started to any name, and then fails to start it.
            match docker.inspect_network(network, None).await {
                Err(error) if status_code(&error) == Some(404) => {
                    return Err(EngineError::Refused {
                        what: what(),
                        cause: format!(
                            "it does not exist: make it with `docker network create {network}`"
                        ),
                    });
                }
                found => drop(found.map_err(self.failed(what()))?),
            }
            let joined = docker.connect_network(network, request).await;
            joined.map_err(self.failed(what()))?;
        }
        Ok(())
    }

    /// Removes this agent's networks that no container is on and whose app is not among `apps`; returns
    /// the names of those that are left.
    pub async fn sweep_networks(&self, apps: &HashSet<AppName>) -> Result<Vec<String>> {
        let filters = HashMap::from([("label", vec![label::AGENT])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let docker = self.client()?;
        let found = docker.list_networks(Some(options)).await;
        let found = found.map_err(self.failed("list its networks"))?;
        let mut left = Vec::new();
        for network in found {
            let (Some(id), Some(name)) = (network.id, network.name) else {
                continue;
            };
            let is_of = |app| self.network_name(app) == name || self.test_network_name(app) == name;
            let used = apps.iter().any(is_of);
            if !self.is_own_network(&name) {
                continue;
            }
            if used || !self.connected(&id).await?.is_empty() {
                left.push(name);
                continue;
            }
            let removed = gone_is_done(docker.remove_network(&id).await);
            removed.map_err(self.failed(format!("remove the network `{name}`")))?;
        }
        Ok(left)
    }

    /// The addresses of containers on the network, running or not, except the one named.
    pub async fn addresses(&self, network: &Network, except: &str) -> Result<HashSet<IpAddr>> {
        let filters = HashMap::from([("network", vec![network.name.as_str()])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters);
        let found = self.client()?.list_containers(Some(options.build())).await;
        let found = found.map_err(self.failed("list the containers of its network"))?;
        let others = found.into_iter().filter(|it| {
            !it.names
                .iter()
                .flatten()
                .any(|name| name.trim_start_matches('/') == except)
        });
        Ok(others
            .filter_map(|it| it.network_settings?.networks?.remove(&network.name))
            .flat_map(|endpoint| addresses_of(&endpoint))
            .collect())
    }

    fn existing(&self, name: String, found: bollard::models::NetworkInspect) -> Result<Network> {
        let subnet = found
            .ipam
            .and_then(|ipam| ipam.config)
            .and_then(|configs| configs.into_iter().find_map(|config| config.subnet))
            .unwrap_or_default();
        let base = subnet
            .strip_suffix("/22")
            .and_then(|text| text.parse::<Ipv4Addr>().ok());
        let base = base.ok_or_else(|| EngineError::Refused {
            what: format!("use the network `{name}`"),
            cause: format!(
                "its subnet is `{subnet}`, not one that Cutover creates; remove the network"
            ),
        })?;
        Ok(Network {
            name,
            base: base.into(),
        })
    }
}

/// The address that a container was assigned, and the one that it has while it runs.
pub fn addresses_of(endpoint: &EndpointSettings) -> impl Iterator<Item = IpAddr> + use<> {
    let given = endpoint
        .ipam_config
        .as_ref()
        .and_then(|it| it.ipv4_address.as_deref());
    let parse = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let both = [parse(given), parse(endpoint.ip_address.as_deref())];
    both.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_instance_keeps_its_address_where_it_can_and_gets_one_that_nobody_has() {
        let network = Network {
            name: "n".into(),
            base: Ipv4Addr::new(10, 192, 4, 0).into(),
        };
        let mut taken = HashSet::new();
        let had = Some(address("10.192.5.9"));
        assert_eq!(network.choose(had, &taken), had);
        taken.extend([address("10.192.5.9"), address("10.192.4.4")]);
        assert_eq!(network.choose(had, &taken), Some(address("10.192.4.5")));
        // An address on a network that has since been removed.
        let foreign = Some(address("172.17.0.2"));
        assert_eq!(network.choose(foreign, &taken), Some(address("10.192.4.5")));
        taken.extend((0..1024).map(|host| IpAddr::V4(Ipv4Addr::from(network.base + host))));
        assert_eq!(network.choose(None, &taken), None);
    }
}
