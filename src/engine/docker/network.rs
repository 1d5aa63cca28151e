//! Cutover's own network: one for each agent, with an explicit subnet, since Docker has room for
//! only about 31 networks with subnets of its own choice.

use std::net::Ipv4Addr;

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};

use super::{Docker, EngineError, Result, status_code};

/// The network that an agent's instances are on.
#[derive(Debug, Clone)]
pub struct Network {
    pub name: String,
    base: u32,
}

impl Network {
    /// The addresses that instances get. The upper quarter of the subnet is left to Docker, for
    /// containers whose address does not matter.
    pub fn addresses(&self) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let base = self.base;
        (4..768).map(move |host| Ipv4Addr::from(base + host))
    }
}

impl Docker {
    /// The agent's network, made where there is none.
    pub async fn network(&self) -> Result<Network> {
        let docker = self.client()?;
        let _one = self.network.lock().await;
        let name = format!("cutover-{}", self.agent);
        let seed = self.agent.as_str().bytes().fold(7u32, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        // 4096 subnets of 1024 addresses in 10.192.0.0/10, which neither Docker's defaults nor the
        // first addresses of home and office networks touch; each agent begins somewhere else.
        for attempt in 0..64 {
            match docker.inspect_network(&name, None).await {
                Ok(found) => return self.existing(name, found),
                Err(error) if status_code(&error) == Some(404) => {}
                Err(error) => return Err(self.failed("look at its network")(error)),
            }
            let index = seed.wrapping_add(attempt) % 4096;
            let base = u32::from(Ipv4Addr::new(10, 192, 0, 0)) + index * 1024;
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
                labels: Some(self.labels()),
                ..Default::default()
            };
            match docker.create_network(request).await {
                Ok(_) => return Ok(Network { name, base }),
                // Taken by another network, or made by somebody else just now: look again.
                Err(error) if matches!(status_code(&error), Some(403 | 409)) => {}
                Err(error) => return Err(self.failed("make its network")(error)),
            }
        }
        Err(EngineError::Refused {
            what: "make its network".into(),
            cause: "no free subnet was found in 10.192.0.0/10".into(),
        })
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
            cause: format!("its subnet is `{subnet}`, not one that Cutover made; remove it"),
        })?;
        Ok(Network {
            name,
            base: base.into(),
        })
    }
}
