//! What a test needs beside it: containers on a network of its own.

use std::collections::BTreeMap;

use bollard::models::HealthStatusEnum;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::listening::exposed;
use super::{Docker, EngineError, Result, gone_is_done, label, status_code};
use crate::config::Command;
use crate::engine::{NeedLook, NeedSpec, Status};
use crate::ids::AppName;
use crate::store::ours::Ours;

/// How much of a container is read at most, in bytes.
const MOST: usize = 16 << 20;

impl Docker {
    pub async fn start_need(&self, spec: &NeedSpec<'_>) -> Result<()> {
        let docker = self.client()?;
        let job = spec.job;
        // One that an earlier attempt left may have its data.
        self.remove(&job.ours()).await?;
        let network = self.test_network(&job.app).await?;
        let what = || format!("start `{}`, which the test needs", spec.name);
        let mut labels = vec![
            (label::APP, job.app.as_str()),
            (label::RELEASE, job.release.as_str()),
        ];
        labels.extend((job.deployment.iter()).map(|id| (label::DEPLOYMENT, id.as_str())));
        labels.extend((job.mark.iter()).map(|mark| (label::MARK, mark.as_str())));
        let mut body = self.body(spec.service, spec.environment, &labels, &network, None);
        body.cmd = spec.service.settings.command.as_ref().map(Command::argv);
        let networks = body.networking_config.as_mut();
        let endpoints = networks.and_then(|it| it.endpoints_config.as_mut());
        if let Some(endpoint) = endpoints.and_then(|it| it.get_mut(&network.name)) {
            endpoint.aliases = Some(vec![spec.name.to_owned()]);
        }
        let options = CreateContainerOptionsBuilder::new().name(&job.name).build();
        let made = docker.create_container(Some(options), body).await;
        made.map_err(self.failed(what()))?;
        let started = docker.start_container(&job.name, None).await;
        started.map_err(self.failed(what()))
    }

    pub async fn look_at_need(&self, ours: &Ours) -> Result<NeedLook> {
        let Some(found) = self.find(ours).await? else {
            return Ok(NeedLook {
                status: Status::Missing,
                address: None,
                healthy: None,
                exposed: None,
            });
        };
        let state = found.state.unwrap_or_default();
        let health = state.health.and_then(|it| it.status);
        let health =
            health.filter(|it| !matches!(it, HealthStatusEnum::NONE | HealthStatusEnum::EMPTY));
        let networks = found.network_settings.and_then(|it| it.networks);
        let endpoint = self.own_endpoint(networks.unwrap_or_default());
        let ports = found
            .config
            .and_then(|it| it.exposed_ports)
            .unwrap_or_default();
        Ok(NeedLook {
            status: match state.running {
                Some(true) => Status::Running,
                _ => Status::Exited(
                    state.exit_code.unwrap_or(-1),
                    state.oom_killed.unwrap_or(false),
                ),
            },
            address: endpoint.and_then(|it| it.ip_address?.parse().ok()),
            healthy: health.map(|it| it == HealthStatusEnum::HEALTHY),
            exposed: exposed(ports.iter().map(String::as_str)).first().copied(),
        })
    }

    /// Removes the network of an app's test. It has no containers any more.
    pub async fn remove_test_network(&self, app: &AppName) -> Result<()> {
        let name = self.test_network_name(app);
        let removed = gone_is_done(self.client()?.remove_network(&name).await);
        removed.map_err(self.failed(format!("remove the network `{name}`")))
    }

    /// The file in a container that has ended, or the files of a folder; an error says why there are none.
    pub(super) async fn collect(
        &self,
        container: &str,
        path: &str,
    ) -> Result<std::result::Result<Vec<Vec<u8>>, String>> {
        let options = DownloadFromContainerOptionsBuilder::new()
            .path(path)
            .build();
        let docker = self.client()?;
        let mut chunks = std::pin::pin!(docker.download_from_container(container, Some(options)));
        let mut tar = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) if tar.len() + chunk.len() > MOST => {
                    return Ok(Err(format!("it is larger than {} MiB", MOST >> 20)));
                }
                Ok(chunk) => tar.extend_from_slice(&chunk),
                Err(error) if status_code(&error) == Some(404) => {
                    return Ok(Err("it is not in the container".to_owned()));
                }
                Err(error) => return Err(self.failed(format!("read `{path}`"))(error)),
            }
        }
        let read = tokio::task::spawn_blocking(move || files_of(&tar)).await;
        let read = read.map_err(|error| EngineError::Stopped(error.to_string()))?;
        Ok(read.map_err(|error| format!("it cannot be read: {error}")))
    }
}

/// The files in a tar: a single one, or those whose names end in `.xml`.
fn files_of(tar: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes().into_owned();
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content)?;
        files.insert(path, content);
    }
    let is_folder = files.keys().any(|path| path.contains(&b'/'));
    files.retain(|path, _| !is_folder || path.to_ascii_lowercase().ends_with(b".xml"));
    Ok(files.into_values().collect())
}
