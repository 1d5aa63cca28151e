//! Finds what carries an agent's labels, whether or not a record names it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, ImageConfig,
    ImageSummary, RestartPolicyNameEnum, Volume,
};
use bollard::query_parameters::{
    InspectContainerOptionsBuilder, ListContainersOptionsBuilder, ListImagesOptionsBuilder,
    ListNetworksOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
};

use super::network::addresses_of;
use super::tend::is_anonymous;
use super::{Docker, EngineError, Result, gone_is_done, label, status_code};
use crate::engine::inventory::{
    Details, FoundContainer, FoundImage, FoundNetwork, FoundVolume, ImageName, ImageTag, Inventory,
};

type Labels = HashMap<String, String>;

impl Docker {
    pub async fn inventory(&self) -> Result<Inventory> {
        Ok(Inventory {
            containers: self.found_containers().await?,
            images: self.found_images().await?,
            networks: self.found_networks().await?,
            volumes: self.found_volumes().await?,
        })
    }

    /// Whether something with these labels was made by this agent, or by one whose record was in the
    /// same folder.
    fn is_of_agent(&self, labels: &Labels, agent: &str, data_dir: &str) -> bool {
        let has = |key: &str, value: &str| labels.get(key).is_some_and(|it| it == value);
        has(agent, self.agent.as_str()) || has(data_dir, &self.data_dir)
    }

    async fn found_containers(&self) -> Result<Vec<FoundContainer>> {
        let filters = HashMap::from([("label", vec![label::AGENT])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters);
        let found = self.client()?.list_containers(Some(options.build())).await;
        let found = found.map_err(self.failed("list its containers"))?;
        let mut containers: Vec<_> = found
            .into_iter()
            .filter(|it| {
                let labels = it.labels.as_ref();
                labels.is_some_and(|it| self.is_of_agent(it, label::AGENT, label::DATA_DIR))
            })
            .filter_map(container)
            .collect();
        containers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(containers)
    }

    pub async fn found_images(&self) -> Result<Vec<FoundImage>> {
        let filters = HashMap::from([("label", vec![label::image::AGENT])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let found = self.client()?.list_images(Some(options)).await;
        let found = found.map_err(self.failed("list its images"))?;
        let ours = found
            .into_iter()
            .filter(|it| self.is_of_agent(&it.labels, label::image::AGENT, label::image::DATA_DIR));
        Ok(ours.map(image).collect())
    }

    async fn found_networks(&self) -> Result<Vec<FoundNetwork>> {
        let filters = HashMap::from([("label", vec![label::AGENT])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let found = self.client()?.list_networks(Some(options)).await;
        let found = found.map_err(self.failed("list its networks"))?;
        let mut networks = Vec::new();
        for network in found {
            let labels = network.labels.unwrap_or_default();
            let (Some(id), Some(name)) = (network.id, network.name) else {
                continue;
            };
            if !self.is_own_network(&name)
                && self.is_of_agent(&labels, label::AGENT, label::DATA_DIR)
            {
                networks.push(FoundNetwork {
                    containers: self.connected(&id).await?,
                    created_at: network.created.map_or(0, millis),
                    id,
                    name,
                });
            }
        }
        Ok(networks)
    }

    /// The names of the containers on a network, running or not.
    pub(super) async fn connected(&self, network: &str) -> Result<Vec<String>> {
        let filters = HashMap::from([("network", vec![network])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters);
        let found = self.client()?.list_containers(Some(options.build())).await;
        let found = found.map_err(self.failed("list the containers of a network"))?;
        Ok(found.into_iter().filter_map(name).collect())
    }

    async fn found_volumes(&self) -> Result<Vec<FoundVolume>> {
        let filters = HashMap::from([("label", vec![label::AGENT]), ("dangling", vec!["true"])]);
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.client()?.list_volumes(Some(options)).await;
        let found = found.map_err(self.failed("list its volumes"))?;
        let ours = found.volumes.unwrap_or_default().into_iter();
        // Those with a name are an app's data, which no sweep may list as left over.
        let ours = ours.filter(|it| is_anonymous(&it.name));
        let ours = ours.filter(|it| self.is_of_agent(&it.labels, label::AGENT, label::DATA_DIR));
        Ok(ours.map(volume).collect())
    }

    pub async fn details(&self, id: &str) -> Result<Option<Details>> {
        let options = InspectContainerOptionsBuilder::new().size(true).build();
        let docker = self.client()?;
        let found = match docker.inspect_container(id, Some(options)).await {
            Err(error) if status_code(&error) == Some(404) => return Ok(None),
            found => found.map_err(self.failed(format!("inspect the container `{id}`")))?,
        };
        let image = found.image.clone().unwrap_or_default();
        let of_image = match docker.inspect_image(&image).await {
            Ok(image) => image.config.unwrap_or_default(),
            Err(error) if status_code(&error) == Some(404) => ImageConfig::default(),
            Err(error) => return Err(self.failed(format!("look at the image `{image}`"))(error)),
        };
        Ok(Some(self.described(found, of_image)))
    }

    fn described(&self, found: ContainerInspectResponse, image: ImageConfig) -> Details {
        let of_image: HashSet<String> = image.env.into_iter().flatten().collect();
        let config = found.config.unwrap_or_default();
        let host = found.host_config.unwrap_or_default();
        let policy = host.restart_policy.and_then(|it| it.name);
        let networks = found.network_settings.and_then(|it| it.networks);
        let own = self.own_endpoint(networks.unwrap_or_default());
        let env = config.env.unwrap_or_default().into_iter();
        let given = env.filter(|line| !of_image.contains(line));
        let entrypoint = config.entrypoint.filter(|own| !own.is_empty());
        let of_image = image.entrypoint.unwrap_or_default();
        let limit = |limit: Option<i64>| limit.filter(|it| *it > 0);
        Details {
            running: found.state.and_then(|it| it.running) == Some(true),
            keeps_running: policy == Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            address: own.and_then(|it| addresses_of(&it).next()),
            env: given
                .filter_map(|line| {
                    let (key, value) = line.split_once('=')?;
                    Some((key.to_owned(), value.to_owned()))
                })
                .collect::<BTreeMap<_, _>>(),
            command: entrypoint.filter(|own| *own != of_image),
            memory: limit(host.memory).map(|bytes| bytes as u64),
            cpus: limit(host.nano_cpus).map(|cpus| cpus as f64 / 1e9),
            stop_grace: Duration::from_secs(config.stop_timeout.unwrap_or(10).max(0) as u64),
            size: found.size_rw.map(|bytes| bytes.max(0) as u64),
        }
    }

    pub async fn remove_unrecorded(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(false);
        let docker = self.client()?;
        let removed = docker.remove_container(id, Some(options.build())).await;
        gone_is_done(removed).map_err(self.failed(format!("remove the container `{id}`")))
    }

    pub async fn remove_network(&self, id: &str) -> Result<()> {
        // Docker itself looks only at the containers that run.
        if let Some(name) = self.connected(id).await?.first() {
            return Err(EngineError::Refused {
                what: format!("remove the network `{id}`"),
                cause: format!("the container `{name}` is connected to it"),
            });
        }
        let removed = self.client()?.remove_network(id).await;
        gone_is_done(removed).map_err(self.failed(format!("remove the network `{id}`")))
    }
}

fn millis(time: time::OffsetDateTime) -> i64 {
    (time.unix_timestamp_nanos() / 1_000_000) as i64
}

fn parsed<T: FromStr>(labels: &Labels, key: &str) -> Option<T> {
    labels.get(key)?.parse().ok()
}

fn name(summary: ContainerSummary) -> Option<String> {
    let name = summary.names?.into_iter().next()?;
    Some(name.trim_start_matches('/').to_owned())
}

fn container(summary: ContainerSummary) -> Option<FoundContainer> {
    let labels = summary.labels.clone().unwrap_or_default();
    let networks = summary.network_settings.clone();
    let networks = networks.and_then(|it| it.networks).unwrap_or_default();
    let mounts = summary.mounts.clone().unwrap_or_default().into_iter();
    let volumes = mounts.filter_map(|it| Some((it.name?, it.destination?)));
    Some(FoundContainer {
        id: summary.id.clone()?,
        app: parsed(&labels, label::APP),
        deployment: parsed(&labels, label::DEPLOYMENT),
        release: parsed(&labels, label::RELEASE),
        commit: parsed(&labels, label::COMMIT),
        mark: labels.get(label::MARK).cloned(),
        image_id: summary.image_id.clone().unwrap_or_default(),
        created_at: summary.created.unwrap_or(0) * 1000,
        running: summary.state == Some(ContainerSummaryStateEnum::RUNNING),
        addresses: networks.values().flat_map(addresses_of).collect(),
        volumes: volumes.filter(|(name, _)| is_anonymous(name)).collect(),
        networks: networks.into_keys().collect(),
        name: name(summary)?,
    })
}

fn image(summary: ImageSummary) -> FoundImage {
    let names = summary.repo_tags.iter();
    let mut names: Vec<_> = names.filter_map(|name| ImageName::parse(name)).collect();
    names.sort_by_key(|name| matches!(name.tag, ImageTag::Deployment(_)));
    FoundImage {
        names,
        app: parsed(&summary.labels, label::image::APP),
        created_at: summary.created * 1000,
        size: summary.size.max(0) as u64,
        id: summary.id,
    }
}

fn volume(volume: Volume) -> FoundVolume {
    FoundVolume {
        path: volume.labels.get(label::PATH).cloned(),
        app: parsed(&volume.labels, label::APP),
        release: parsed(&volume.labels, label::RELEASE),
        created_at: volume.created_at.map_or(0, millis),
        name: volume.name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_its_commit_where_it_has_such_a_name() {
        let by_deployment = "cutover/shop:d1m8jdrhjnbw11".to_owned();
        let by_commit = "cutover/shop:d6b0abbc77fe".to_owned();
        let found = image(ImageSummary {
            repo_tags: vec![by_deployment.clone(), by_commit.clone()],
            ..Default::default()
        });
        let names: Vec<_> = found.names.into_iter().map(|name| name.full).collect();
        assert_eq!(names, [by_commit, by_deployment]);
    }
}
