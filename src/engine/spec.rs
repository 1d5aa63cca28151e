//! What instances and jobs are created from.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::config::Command;
use crate::ids::CommitId;
use crate::store::instances::Instance;
use crate::store::jobs::Job;
use crate::store::services::Service;
use crate::store::volumes::Volume;

/// What a container gets besides its service's settings; looked up whenever one is made.
#[derive(Default)]
pub struct Environment {
    /// Some of the values are secret, so there is no `Debug`.
    pub variables: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    /// The addresses of hosts, as in /etc/hosts.
    pub hosts: BTreeMap<String, IpAddr>,
}

/// The network that an app's containers are on, and nobody else's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppNetwork {
    pub name: String,
    pub subnet: Ipv4Net,
    /// This machine's own address there.
    pub gateway: Ipv4Addr,
}

/// Storage that a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub source: MountSource,
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountSource {
    /// The engine's name for the volume.
    Volume(String),
    /// A path of this machine, without symbolic links.
    Host(PathBuf),
}

/// The address at which the proxy reaches an instance.
pub type Endpoint = SocketAddr;

/// What an instance is created from.
pub struct InstanceSpec<'a> {
    pub instance: &'a Instance,
    pub service: &'a Service,
    pub commit: &'a CommitId,
    /// The anonymous volumes that a container of this instance had before: a new one gets them back.
    pub volumes: &'a [Volume],
    /// Every endpoint in our record. No other instance may get one of them, even if no container has
    /// it at the moment: requests to it may be in flight.
    pub recorded: &'a [Endpoint],
    /// An error, for people, fails only the making of a container; one that exists has its own.
    pub environment: &'a std::result::Result<Environment, String>,
}

/// What a job is created from.
pub struct JobSpec<'a> {
    /// The job as recorded.
    pub job: &'a Job,
    /// The service whose image and settings the job runs with.
    pub service: &'a Service,
    pub environment: &'a Environment,
    pub command: &'a Command,
    /// How long the job may run.
    pub deadline: Duration,
    /// Whether it has a terminal, if it reads what a person types.
    pub terminal: Option<bool>,
    /// Whether it is on the network of its app's test, with what that needs, and on no other.
    pub apart: bool,
    /// The file in its container, or the folder of files, that is read when it has ended.
    pub collect: Option<&'a str>,
}

/// What a container that a test needs is created from.
pub struct NeedSpec<'a> {
    /// The container as recorded.
    pub job: &'a Job,
    /// The name by which the test reaches it.
    pub name: &'a str,
    /// Its image and settings.
    pub service: &'a Service,
    pub environment: &'a Environment,
}
