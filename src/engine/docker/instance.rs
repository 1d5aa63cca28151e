//! One instance: a container of a release.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerUpdateBody, DeviceMapping,
    DeviceRequest, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig, Mount,
    MountType, MountVolumeOptions, NetworkingConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use futures_util::StreamExt;

use super::network::{Network, addresses_of};
use super::output::Tail;
use super::{Docker, EngineError, Result, gone_is_done, label, status_code};
use crate::config::Command;
use crate::engine::{self, Endpoint, Environment, Found, InstanceSpec, MountSource, Status};
use crate::store::ours::Ours;
use crate::store::services::Service;
use crate::store::settings::{Gpus, LogDriver};

/// The process limit: enough for any server, too few for a fork bomb to take down the machine.
const PIDS: i64 = 4096;

/// The capabilities that public images need at start (to change to their own user, to bind a low port)
/// and no more: no raw sockets, no device nodes, no ptrace. Some can be given back by the settings.
const CAPABILITIES: [&str; 7] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// Docker's name for this machine's own network.
pub(super) const HOST_NETWORK: &str = "host";

/// Docker keeps a line in pieces of 16 KiB and counts each: this many more are read, for a line of 4 MiB.
const PIECES: usize = 256;

/// Whether a container was created now or existed already.
enum Made {
    Now,
    Before,
}

/// What a container that has to be created gets besides what its environment names.
struct Storage {
    mounts: Vec<Mount>,
    /// The paths of the volumes that its image declares.
    declared: Vec<String>,
}

impl Docker {
    pub async fn start(&self, spec: &InstanceSpec<'_>) -> Result<Option<Endpoint>> {
        self.start_with(spec, Vec::new()).await
    }

    /// Like [`Docker::start`], but a container that has to be created gets these mounts.
    pub(super) async fn start_with(
        &self,
        spec: &InstanceSpec<'_>,
        mounts: Vec<Mount>,
    ) -> Result<Option<Endpoint>> {
        // One look-up does not wait for the other.
        let image = &spec.service.image_id;
        let (network, declared) = tokio::join!(
            self.network(&spec.instance.app),
            self.volumes_of_image(image)
        );
        let network = network?;
        // An image that is gone is no reason to leave a container that exists; one that does not exist
        // cannot be created without it anyway.
        let declared = declared.unwrap_or_default();
        let storage = Storage { mounts, declared };
        let endpoint = match spec.service.port {
            // On this machine's network.
            Some(port) if spec.service.settings.container.host_network => {
                self.make(spec, &network, None, storage).await?;
                Some(Endpoint::new(Ipv4Addr::LOCALHOST.into(), port))
            }
            Some(port) => {
                let address = self.make_reachable(spec, &network, storage).await?;
                Some(Endpoint::new(address, port))
            }
            None => {
                self.make(spec, &network, None, storage).await?;
                None
            }
        };
        let name = &spec.instance.name;
        let networks = &spec.service.settings.container.networks;
        self.join(name, networks).await?;
        match self.client()?.start_container(name, None).await {
            // 304: it is running already.
            Err(error) if status_code(&error) == Some(304) => {}
            other => other.map_err(self.failed(format!("start the container `{name}`")))?,
        }
        Ok(endpoint)
    }

    /// Creates the container with a fixed address: one that Docker chooses may belong to another
    /// container after the next start.
    async fn make_reachable(
        &self,
        spec: &InstanceSpec<'_>,
        network: &Network,
        storage: Storage,
    ) -> Result<IpAddr> {
        let instance = spec.instance;
        let _one = self.addresses.lock().await;
        let address = self.free_address(spec, network).await?;
        match self.make(spec, network, Some(address), storage).await? {
            Made::Now => Ok(address),
            Made::Before => self.address(&instance.name, network).await,
        }
    }

    async fn make(
        &self,
        spec: &InstanceSpec<'_>,
        network: &Network,
        address: Option<IpAddr>,
        storage: Storage,
    ) -> Result<Made> {
        let instance = spec.instance;
        let name = &instance.name;
        let mut labels = vec![
            (label::APP, instance.app.as_str()),
            (label::RELEASE, instance.release.as_str()),
            (label::DEPLOYMENT, instance.deployment.as_str()),
            (label::COMMIT, spec.commit.as_str()),
        ];
        labels.extend((instance.mark.iter()).map(|mark| (label::MARK, mark.as_str())));
        let environment = environment_of(spec)?;
        let mut body = self.body(spec.service, environment, &labels, network, address);
        body.entrypoint = spec.service.settings.command.as_ref().map(Command::argv);
        if let Some(host) = &mut body.host_config {
            // A job's output is read by Cutover itself.
            if let Some(log) = &spec.service.settings.container.log {
                host.log_config = Some(log_config(log));
            }
            let named = host.mounts.take().unwrap_or_default();
            let mounts = [named, storage.mounts].concat();
            host.mounts = Some(self.mounts(spec, mounts, storage.declared));
        }
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        match self.client()?.create_container(Some(options), body).await {
            Ok(_) => Ok(Made::Now),
            Err(error) if status_code(&error) == Some(409) => {
                match self.find(&instance.ours()).await? {
                    Some(_) => Ok(Made::Before),
                    None => Err(EngineError::Refused {
                        what: format!("create the container `{name}`"),
                        cause: "a container that Cutover did not create has this name".into(),
                    }),
                }
            }
            Err(error) => Err(self.failed(format!("create the container `{name}`"))(error)),
        }
    }

    /// What a new container gets besides `mounts`: the volumes that it had before, and an anonymous one
    /// for each other path that its image has `declared`, with labels by which it can be found.
    fn mounts(
        &self,
        spec: &InstanceSpec<'_>,
        mut mounts: Vec<Mount>,
        declared: Vec<String>,
    ) -> Vec<Mount> {
        let volume = |source: Option<String>, target: &str| Mount {
            typ: Some(MountType::VOLUME),
            source,
            target: Some(target.to_owned()),
            ..Default::default()
        };
        let before = spec.volumes.iter();
        let before = before.map(|it| (it.path.clone(), Some(it.name.clone())));
        let declared = declared.into_iter().map(|path| (path, None));
        for (path, source) in before.chain(declared) {
            let has = |mount: &Mount| mount.target.as_deref().is_some_and(|it| same(it, &path));
            if mounts.iter().any(has) {
                continue;
            }
            let mut mount = volume(source, &path);
            let mut labels = self.labels();
            labels.insert(label::APP.into(), spec.instance.app.to_string());
            labels.insert(label::RELEASE.into(), spec.instance.release.to_string());
            labels.insert(label::PATH.into(), path);
            mount.volume_options = Some(MountVolumeOptions {
                labels: Some(labels),
                ..Default::default()
            });
            mounts.push(mount);
        }
        mounts
    }

    /// The address of an existing container.
    async fn address(&self, name: &str, network: &Network) -> Result<IpAddr> {
        let found = self.client()?.inspect_container(name, None).await;
        let found = found.map_err(self.failed(format!("inspect the container `{name}`")))?;
        let networks = found.network_settings.and_then(|it| it.networks);
        let endpoint = self.own_endpoint(networks.unwrap_or_default());
        let address = endpoint.and_then(|endpoint| addresses_of(&endpoint).next());
        address.ok_or_else(|| EngineError::Refused {
            what: format!("find the address of the container `{name}`"),
            cause: format!("it is not on the network `{}`", network.name),
        })
    }

    /// The configuration of every container of a service, instance or job.
    pub(super) fn body(
        &self,
        service: &Service,
        environment: &Environment,
        more_labels: &[(&str, &str)],
        network: &Network,
        address: Option<IpAddr>,
    ) -> ContainerCreateBody {
        let run = &service.settings;
        let container = &run.container;
        let mut labels: HashMap<_, _> = container.labels.clone().into_iter().collect();
        labels.extend(self.labels());
        labels.extend((more_labels.iter()).map(|(key, value)| ((*key).into(), (*value).into())));
        let env = &environment.variables;
        let endpoint = EndpointSettings {
            ipam_config: address.map(|address| EndpointIpamConfig {
                ipv4_address: Some(address.to_string()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let more = run.capabilities.iter().map(String::as_str);
        let capabilities = CAPABILITIES.into_iter().chain(more);
        let linked = environment.hosts.iter();
        let hosts = linked.map(|(name, address)| (name.clone(), address.to_string()));
        let hosts: BTreeMap<_, _> = hosts.chain(container.extra_hosts.clone()).collect();
        let limited = !container.privileged;
        let log_options = [("max-size", "10m"), ("max-file", "3")];
        ContainerCreateBody {
            // By id, not by tag: a tag may have moved since the release was created.
            image: Some(service.image_id.clone()),
            env: Some(
                env.iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect(),
            ),
            labels: Some(labels),
            user: container.user.clone(),
            stop_signal: container.stop_signal.clone(),
            stop_timeout: Some(run.stop_grace.as_secs() as i64),
            host_config: Some(HostConfig {
                memory: run.memory.map(|bytes| bytes as i64),
                // Without this, a container may use as much swap as memory, on top of it.
                memory_swap: run.memory.map(|bytes| bytes as i64),
                nano_cpus: run.cpus.map(|cpus| (cpus * 1e9) as i64),
                pids_limit: Some(PIDS),
                privileged: Some(container.privileged),
                pid_mode: container.host_pid.then(|| "host".to_owned()),
                security_opt: limited.then(|| vec!["no-new-privileges".into()]),
                cap_drop: limited.then(|| vec!["ALL".into()]),
                cap_add: limited.then(|| capabilities.map(str::to_owned).collect()),
                mounts: Some(mounts_of(environment)),
                tmpfs: Some(container.tmpfs.iter().map(tmpfs).collect()),
                readonly_rootfs: Some(container.read_only),
                init: Some(container.init),
                ulimits: Some(container.ulimits.iter().map(ulimit).collect()),
                shm_size: container.shm_size.map(|bytes| bytes as i64),
                devices: Some(container.devices.iter().map(device).collect()),
                device_requests: container.gpus.as_ref().map(|gpus| vec![cards(gpus)]),
                extra_hosts: Some(hosts.iter().map(extra_host).collect()),
                dns: Some(container.dns.iter().map(IpAddr::to_string).collect()),
                network_mode: Some(match container.host_network {
                    true => HOST_NETWORK.to_owned(),
                    false => network.name.clone(),
                }),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: None,
                }),
                log_config: Some(HostConfigLogConfig {
                    typ: Some("json-file".into()),
                    config: Some(log_options.map(|(k, v)| (k.into(), v.into())).into()),
                }),
                ..Default::default()
            }),
            networking_config: (!container.host_network).then(|| NetworkingConfig {
                endpoints_config: Some(HashMap::from([(network.name.clone(), endpoint)])),
            }),
            ..Default::default()
        }
    }

    /// The container that the record names, if it exists.
    pub(super) async fn find(&self, ours: &Ours) -> Result<Option<ContainerInspectResponse>> {
        let name = &ours.name;
        let found = match self.client()?.inspect_container(name, None).await {
            Err(error) if status_code(&error) == Some(404) => return Ok(None),
            other => other.map_err(self.failed(format!("inspect the container `{name}`")))?,
        };
        let labels = found.config.as_ref().and_then(|it| it.labels.as_ref());
        let mark = labels.and_then(|labels| labels.get(label::MARK));
        let is_ours = ours.has(mark.map(String::as_str));
        Ok(Some(found).filter(|_| is_ours))
    }

    /// Its id, which still identifies the container that was found if its name is reused.
    pub(super) async fn id(&self, ours: &Ours) -> Result<Option<String>> {
        Ok(self.find(ours).await?.and_then(|found| found.id))
    }

    pub async fn status(&self, ours: &Ours) -> Result<Status> {
        let Some(found) = self.find(ours).await? else {
            return Ok(Status::Missing);
        };
        let state = found.state.unwrap_or_default();
        if state.running == Some(true) && state.restarting != Some(true) {
            return Ok(Status::Running);
        }
        Ok(Status::Exited(
            state.exit_code.unwrap_or(-1),
            state.oom_killed.unwrap_or(false),
        ))
    }

    pub async fn restarts(&self, ours: &Ours) -> Result<i64> {
        let found = self.find(ours).await?;
        Ok(found.and_then(|found| found.restart_count).unwrap_or(0))
    }

    pub async fn keep_running(&self, ours: &Ours, keep: bool) -> Result<()> {
        let Some(id) = self.id(ours).await? else {
            return Ok(());
        };
        let policy = if keep {
            RestartPolicyNameEnum::UNLESS_STOPPED
        } else {
            RestartPolicyNameEnum::NO
        };
        let update = ContainerUpdateBody {
            restart_policy: Some(RestartPolicy {
                name: Some(policy),
                maximum_retry_count: None,
            }),
            ..Default::default()
        };
        let result = gone_is_done(self.client()?.update_container(&id, update).await);
        result.map_err(self.failed(format!("set the restart policy of `{}`", ours.name)))
    }

    pub async fn stop(&self, ours: &Ours, grace: Duration) -> Result<()> {
        let Some(id) = self.id(ours).await? else {
            return Ok(());
        };
        let docker = self.client()?.with_timeout(grace + Duration::from_secs(30));
        let seconds = grace.as_secs().min(i32::MAX as u64) as i32;
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let result = gone_is_done(docker.stop_container(&id, Some(options)).await);
        match result {
            // 304: it is stopped already.
            Err(error) if status_code(&error) == Some(304) => Ok(()),
            other => other.map_err(self.failed(format!("stop the container `{}`", ours.name))),
        }
    }

    pub async fn remove(&self, ours: &Ours) -> Result<()> {
        self.remove_with(ours, true).await
    }

    /// Like [`Self::remove`], but keeps the container's anonymous volumes.
    pub async fn remove_without_volumes(&self, ours: &Ours) -> Result<()> {
        self.remove_with(ours, false).await
    }

    async fn remove_with(&self, ours: &Ours, volumes: bool) -> Result<()> {
        let docker = self.client()?;
        let Some(id) = self.id(ours).await? else {
            return Ok(());
        };
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(volumes)
            .build();
        match gone_is_done(docker.remove_container(&id, Some(options)).await) {
            // 409: it is being removed at this moment; it is gone once the name is free.
            Err(error) if status_code(&error) == Some(409) => self.wait_gone(ours).await,
            other => other.map_err(self.failed(format!("remove the container `{}`", ours.name))),
        }
    }

    async fn wait_gone(&self, ours: &Ours) -> Result<()> {
        for _ in 0..100 {
            if self.status(ours).await? == Status::Missing {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Err(EngineError::Refused {
            what: format!("remove the container `{}`", ours.name),
            cause: "its removal has not finished within ten seconds".into(),
        })
    }

    pub async fn log_tail(&self, ours: &Ours, lines: usize) -> Result<Vec<String>> {
        let Some(id) = self.id(ours).await? else {
            return Ok(Vec::new());
        };
        let name = &ours.name;
        let options = LogsOptionsBuilder::new()
            .stdout(true)
            .stderr(true)
            .tail(&(lines + PIECES).to_string());
        let docker = self.client()?;
        let mut stream = std::pin::pin!(docker.logs(&id, Some(options.build())));
        let mut tail = Tail::new(lines);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(output) => tail.output(&output),
                Err(error) if status_code(&error) == Some(404) => break,
                // Its log driver keeps nothing that could be read.
                Err(error) if error.to_string().contains("does not support reading") => break,
                Err(error) => return Err(self.failed(format!("read the log of `{name}`"))(error)),
            }
        }
        Ok(tail.lines())
    }

    pub async fn list(&self) -> Result<Vec<Found>> {
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&self.ours())
            .build();
        let found = self.client()?.list_containers(Some(options)).await;
        let found = found.map_err(self.failed("list its containers"))?;
        Ok(found.into_iter().filter_map(from_summary).collect())
    }
}

/// Whether two paths in a container are the same.
fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

/// What a new container gets; an error if it could not be found out.
pub(super) fn environment_of<'a>(spec: &InstanceSpec<'a>) -> Result<&'a Environment> {
    let wrong = |why: &String| EngineError::Stopped(why.clone());
    spec.environment.as_ref().map_err(wrong)
}

pub(super) fn mounts_of(environment: &Environment) -> Vec<Mount> {
    let mount = |mount: &engine::Mount| {
        let (typ, source) = match &mount.source {
            MountSource::Volume(name) => (MountType::VOLUME, name.clone()),
            MountSource::Host(path) => (MountType::BIND, path.display().to_string()),
        };
        Mount {
            typ: Some(typ),
            source: Some(source),
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            ..Default::default()
        }
    };
    environment.mounts.iter().map(mount).collect()
}

fn tmpfs((path, size): (&String, &Option<u64>)) -> (String, String) {
    let size = size.map(|bytes| format!("size={bytes}"));
    (path.clone(), size.unwrap_or_default())
}

fn ulimit((name, (soft, hard)): (&String, &(i64, i64))) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(*soft),
        hard: Some(*hard),
    }
}

fn device((host, target): (&String, &String)) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(host.clone()),
        path_in_container: Some(target.clone()),
        cgroup_permissions: Some("rwm".into()),
    }
}

fn cards(gpus: &Gpus) -> DeviceRequest {
    let (count, device_ids) = match gpus {
        Gpus::All => (Some(-1), None),
        Gpus::Count(count) => (Some(i64::from(*count)), None),
        Gpus::Named(names) => (None, Some(names.clone())),
    };
    DeviceRequest {
        count,
        device_ids,
        capabilities: Some(vec![vec!["gpu".into()]]),
        ..Default::default()
    }
}

fn log_config(log: &LogDriver) -> HostConfigLogConfig {
    HostConfigLogConfig {
        typ: Some(log.driver.clone()),
        config: Some(log.options.clone().into_iter().collect()),
    }
}

fn extra_host((name, address): (&String, &String)) -> String {
    format!("{name}:{address}")
}

fn from_summary(summary: bollard::models::ContainerSummary) -> Option<Found> {
    let name = summary
        .names?
        .into_iter()
        .next()?
        .trim_start_matches('/')
        .to_owned();
    let mark = summary.labels.unwrap_or_default().remove(label::MARK);
    Some(Found { name, mark })
}
