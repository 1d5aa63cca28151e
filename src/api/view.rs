//! Deployments, releases and apps as the API shows them. The shapes are fixed: other programs read
//! them.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::deploy::tend::Tend;
use crate::ids::{AppName, ReleaseId};
use crate::principal::Requester;
use crate::proxy::control::Receipt;
use crate::state::{State, Step};
use crate::store::apps::Serving;
use crate::store::deployments::{self, Deployment, Failure, Goal, Trigger};
use crate::store::provenance::Provenance;
use crate::store::releases::Release;
use crate::store::services::Service;
use crate::store::statuses::{self, ForgeStatus, StatusKind, StatusPhase};
use crate::store::{Result, steps, volumes};

/// One attempt to make a commit, or an earlier release, live.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deployment)]
pub struct DeploymentView {
    #[schema(example = "d01m5z8k2q4x7a")]
    pub id: String,
    #[schema(example = "hello")]
    pub app: String,
    pub trigger: Trigger,
    /// The ref that was pushed or asked for; null if none was named.
    #[schema(required, example = "refs/heads/main")]
    pub r#ref: Option<String>,
    /// The full commit id; null until the commit is known.
    #[schema(
        required,
        pattern = "^[0-9a-f]{40}$",
        example = "8f3c2a9d41b07e65c1d2f0a8b94e7763d5102c9e"
    )]
    pub commit: Option<String>,
    /// The first line of the commit message.
    #[schema(required, example = "Say hello in colour")]
    pub message: Option<String>,
    /// The commit's author.
    #[schema(required, example = "Ada Lovelace")]
    pub author: Option<String>,
    pub state: State,
    /// Whether the release of this deployment is the one that serves traffic now.
    pub current: bool,
    /// The release's id; null until the image is built.
    #[schema(required, example = "r01m5z8k6c0d3f")]
    pub release: Option<String>,
    /// The image's tag: `cutover/APP:` and the first 12 digits of the commit.
    #[schema(required, example = "cutover/hello:8f3c2a9d41b0")]
    pub image: Option<String>,
    /// The image's id.
    #[schema(required, example = "sha256:9a0b44d5f1c26e83")]
    pub image_id: Option<String>,
    /// What the image was built from; null if that is not known.
    #[schema(required)]
    pub provenance: Option<Provenance>,
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.125Z")]
    pub created_at: String,
    /// Whether the release is kept but its image is gone from Docker: somebody removed it.
    pub image_gone: bool,
    /// Null while the deployment is waiting or running.
    #[schema(required, format = DateTime, example = "2026-05-04T09:30:04.610Z")]
    pub ended_at: Option<String>,
    /// The steps that have begun, in order.
    pub steps: Vec<StepView>,
    /// How long each finished step took, in milliseconds.
    pub timings_ms: BTreeMap<String, i64>,
    /// Null until the old release has drained.
    #[schema(required)]
    pub receipt: Option<Receipt>,
    /// Null unless the deployment failed, was rolled back or was replaced.
    #[schema(required)]
    pub error: Option<Failure>,
    /// Who requested it; null for deployments from before this was recorded.
    #[schema(required)]
    pub requested_by: Option<RequesterView>,
    /// Who cancelled it; null if nobody did.
    #[schema(required)]
    pub cancelled_by: Option<RequesterView>,
    /// Whether it builds without the cache of earlier images.
    pub no_cache: bool,
    /// Whether it asks the registries for newer base images.
    pub pull: bool,
    /// What the forge is told about this deployment; empty if no forge is told anything.
    pub reports: Vec<ReportView>,
    /// Anonymous volumes that containers of its release have left, kept for as long as the release is.
    pub volumes: Vec<VolumeView>,
    /// Whether its release is kept.
    #[serde(skip)]
    pub kept: bool,
}

impl DeploymentView {
    /// Adds which images there are.
    pub fn among(mut self, images: &HashSet<String>) -> Self {
        let image = self.image_id.as_ref().filter(|_| self.kept);
        self.image_gone = image.is_some_and(|id| !images.contains(id));
        self
    }
}

/// A volume that is kept although its container is gone.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Volume)]
pub struct VolumeView {
    /// As `docker volume` knows it.
    pub name: String,
    /// Where it was in the container.
    #[schema(example = "/data")]
    pub path: String,
}

/// Who made a request. The token, the user id and the forge are verified; the user's name is what the
/// forge or the pusher says.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Requester)]
pub struct RequesterView {
    pub kind: RequesterKind,
    /// The token's name.
    #[schema(required, example = "admin")]
    pub token: Option<String>,
    /// The user id on this machine.
    #[schema(required, example = 1000)]
    pub uid: Option<u32>,
    #[schema(required, example = "github")]
    pub forge: Option<String>,
    #[schema(required, example = "ada")]
    pub user: Option<String>,
    /// The address that the request came from; null if it was made on this machine.
    #[schema(required, example = "192.0.2.7")]
    pub from: Option<String>,
}

/// How the request arrived: with an API token, over the Unix socket, in a webhook, as `git push`
/// over HTTP, through `hooks/post-receive`, from the agent itself, or from somebody without a valid token.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RequesterKind {
    Token,
    Local,
    Webhook,
    GitHttp,
    GitHook,
    #[default]
    Agent,
    Stranger,
}

impl From<Requester> for RequesterView {
    fn from(who: Requester) -> Self {
        let from = who.address();
        let of = |kind| Self {
            kind,
            from: from.map(|from| from.to_string()),
            ..Self::default()
        };
        match who {
            Requester::Token { token, .. } => Self {
                token: Some(token),
                ..of(RequesterKind::Token)
            },
            Requester::Local { uid } => Self {
                uid: Some(uid),
                ..of(RequesterKind::Local)
            },
            Requester::Webhook { forge, user, .. } => Self {
                forge: Some(forge),
                user,
                ..of(RequesterKind::Webhook)
            },
            Requester::GitHttp { token, user, .. } => Self {
                token: Some(token),
                user,
                ..of(RequesterKind::GitHttp)
            },
            Requester::GitHook { uid } => Self {
                uid: Some(uid),
                ..of(RequesterKind::GitHook)
            },
            Requester::Agent => of(RequesterKind::Agent),
            Requester::Stranger { .. } => of(RequesterKind::Stranger),
        }
    }
}

/// What a forge is told about a deployment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Report)]
pub struct ReportView {
    pub kind: StatusKind,
    pub phase: StatusPhase,
    pub state: ReportState,
    /// Why the forge has not been told (yet).
    #[schema(required)]
    pub error: Option<String>,
}

/// The state of a report.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportState {
    Waiting,
    Told,
    Refused,
}

/// One step of a deployment.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Step)]
pub struct StepView {
    #[schema(value_type = Step, inline)]
    pub name: String,
    pub state: StepState,
    #[schema(format = DateTime, example = "2026-05-04T09:30:00.140Z")]
    pub started_at: String,
    /// Null while the step runs.
    #[schema(required, format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    pub ended_at: Option<String>,
    /// What the step did, or why it failed.
    #[schema(required)]
    pub detail: Option<String>,
}

/// The state of a step.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    Started,
    Done,
    Failed,
    /// It was under way when the deployment was cancelled, superseded or skipped.
    Stopped,
}

/// The image and settings of an app's services. A rollback goes back to a release.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Release)]
pub struct ReleaseView {
    #[schema(example = "r01m5z8k6c0d3f")]
    pub id: String,
    #[schema(example = "hello")]
    pub app: String,
    /// The id of the deployment that made this release.
    #[schema(example = "d01m5z8k2q4x7a")]
    pub deployment: String,
    /// The full commit id.
    #[schema(
        pattern = "^[0-9a-f]{40}$",
        example = "8f3c2a9d41b07e65c1d2f0a8b94e7763d5102c9e"
    )]
    pub commit: String,
    /// The first line of the commit message.
    #[schema(example = "Say hello in colour")]
    pub message: String,
    /// The commit's author.
    #[schema(example = "Ada Lovelace")]
    pub author: String,
    /// The image's tag: `cutover/APP:` and the first 12 digits of the commit.
    #[schema(example = "cutover/hello:8f3c2a9d41b0")]
    pub image: String,
    /// The image's id.
    #[schema(example = "sha256:9a0b44d5f1c26e83")]
    pub image_id: String,
    /// Its name and digest in a registry, if it comes from one or was pushed to one.
    #[schema(
        required,
        example = "ghcr.io/acme/hello:1@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
    )]
    pub image_digest: Option<String>,
    /// What its image was built from; null if that is not known.
    #[schema(required)]
    pub provenance: Option<Provenance>,
    /// Whether this release is the one that serves traffic now.
    pub current: bool,
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    pub created_at: String,
    /// When it last went live; null if it never did.
    #[schema(required, format = DateTime, example = "2026-05-04T09:30:03.480Z")]
    pub live_at: Option<String>,
    /// Whether its image is kept, so that a rollback can go back to it.
    pub kept: bool,
    /// Whether it failed in its bake: a rollback that does not name it passes it by.
    pub failed_bake: bool,
    /// Whether its image should be kept but is gone from Docker: somebody removed it. A rollback with
    /// `rebuild` builds it again.
    pub gone: bool,
}

impl ReleaseView {
    /// Adds which images there are.
    pub fn among(mut self, images: &HashSet<String>) -> Self {
        self.gone = self.kept && !images.contains(&self.image_id);
        self.kept &= !self.gone;
        self
    }
}

/// One `[apps.NAME]` of deploy.toml, or an app that is no longer in it but still serves.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = App)]
pub struct AppView {
    #[schema(example = "hello")]
    pub name: String,
    /// Whether the app is in deploy.toml. One that no longer is keeps serving until it is removed;
    /// its `repo` and `branch` are empty.
    pub configured: bool,
    /// The repository's address, or its path on this machine; of an app without one, its image, and
    /// `branch` is empty.
    #[schema(example = "https://github.com/acme/hello.git")]
    pub repo: String,
    #[schema(example = "main")]
    pub branch: String,
    #[schema(example = json!(["hello.example.com"]))]
    pub domains: Vec<String>,
    /// The live release; null before the first one.
    #[schema(required)]
    pub release: Option<ReleaseView>,
    /// The newest deployment; null before the first one.
    #[schema(required)]
    pub deployment: Option<DeploymentView>,
    /// The deployment that is under way, other than a waiting one; null if there is none.
    #[schema(required)]
    pub running: Option<DeploymentView>,
    /// How many instances of the live release there should be, and how many serve; null before the first
    /// release.
    #[schema(required)]
    pub instances: Option<InstancesView>,
    /// Set while a person has stopped the app.
    #[schema(required)]
    pub stopped: Option<StoppedView>,
    /// What does not run as it should, and what is done about it; empty if all is well.
    #[schema(example = json!([]))]
    pub problems: Vec<String>,
}

/// That an app was stopped.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Stopped)]
pub struct StoppedView {
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    pub at: String,
    #[schema(example = "token `admin`")]
    pub by: String,
}

/// The instances of a live release.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Instances)]
pub struct InstancesView {
    #[schema(example = 2)]
    pub wanted: u32,
    #[schema(example = 2)]
    pub serving: u32,
    /// The same of each process, `web` included.
    pub processes: Vec<ProcessView>,
}

/// The instances of one process of a live release.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Process)]
pub struct ProcessView {
    #[schema(example = "worker")]
    pub name: String,
    #[schema(example = 2)]
    pub wanted: u32,
    #[schema(example = 2)]
    pub serving: u32,
    /// What deploy.toml says, if a person has scaled it; otherwise null.
    #[schema(required)]
    pub configured: Option<u32>,
    #[serde(skip)]
    pub names: Vec<String>,
}

impl AppView {
    /// Adds what the reconciler has found.
    pub fn tended(mut self, tend: &Tend) -> Self {
        self.problems = tend.problems(&self.name);
        if let Some(instances) = &mut self.instances
            && self.stopped.is_none()
        {
            for process in &mut instances.processes {
                let serving = process.names.iter().filter(|name| !tend.is_down(name));
                process.serving = serving.count() as u32;
            }
            instances.serving = instances.processes.iter().map(|it| it.serving).sum();
            let (serving, wanted) = (instances.serving, instances.wanted);
            if serving < wanted {
                let short = instances
                    .processes
                    .iter()
                    .filter(|it| it.serving < it.wanted);
                let short = short.map(|it| format!("{} {} of {}", it.name, it.serving, it.wanted));
                let them = match wanted {
                    1 => "instance serves",
                    _ => "instances serve",
                };
                let text = match instances.processes.len() {
                    1 => format!("`{}`: {serving} of {wanted} {them}", self.name),
                    _ => {
                        let short = short.collect::<Vec<_>>().join(", ");
                        format!("`{}`: not every instance runs: {short}", self.name)
                    }
                };
                self.problems.insert(0, text);
            }
        }
        self
    }
}

/// Looks up everything that belongs to a deployment, and assembles its view.
pub fn deployment(db: &rusqlite::Connection, row: Deployment) -> Result<DeploymentView> {
    let serving = crate::store::apps::serving(db, &row.app)?;
    // A rollback knows its release from the beginning.
    let release = row.release.as_ref().or(match &row.goal {
        Goal::Release(id) => Some(id),
        _ => None,
    });
    let release = match release {
        Some(id) => crate::store::releases::get(db, id)?,
        None => None,
    };
    let steps = steps::of(db, &row.id)?;
    let reports = statuses::of(db, &row.id)?;
    let timings = steps.iter().filter_map(|step| {
        step.ended_at
            .map(|ended| (step.name.clone(), ended - step.started_at))
    });
    // If several deployments made one release live, the last one counts.
    let current = match (&row.release, &serving.live) {
        (Some(own), Some(live)) if own == live => is_last_with(db, &row, live)?,
        _ => false,
    };
    let volumes = match &row.release {
        Some(id) => volumes::of_release(db, id)?,
        None => Vec::new(),
    };
    let web = release.as_ref().and_then(Release::main);
    Ok(DeploymentView {
        id: row.id.to_string(),
        app: row.app.to_string(),
        trigger: row.trigger,
        r#ref: row.git_ref,
        commit: row.commit.map(String::from),
        message: row.message,
        author: row.author,
        state: row.state,
        current,
        release: release.as_ref().map(|release| release.id.to_string()),
        image: web.map(|service| service.image.clone()),
        image_id: web.map(|service| service.image_id.clone()),
        provenance: release.as_ref().and_then(|it| it.provenance.clone()),
        image_gone: false,
        kept: release.as_ref().is_some_and(|it| it.removed_at.is_none()),
        created_at: rfc3339(row.created_at),
        ended_at: row.ended_at.map(rfc3339),
        timings_ms: timings.collect(),
        steps: steps.into_iter().map(step).collect(),
        receipt: row.receipt,
        error: row.error,
        requested_by: row.requested_by.map(RequesterView::from),
        cancelled_by: row.cancelled_by.map(RequesterView::from),
        no_cache: row.no_cache,
        pull: row.pull,
        reports: reports.into_iter().filter_map(report).collect(),
        volumes: kept(volumes).map(volume).collect(),
    })
}

/// The volumes that no instance uses any more.
fn kept(all: Vec<volumes::Volume>) -> impl Iterator<Item = volumes::Volume> {
    all.into_iter().filter(|it| it.instance.is_none())
}

fn volume(kept: volumes::Volume) -> VolumeView {
    VolumeView {
        name: kept.name,
        path: kept.path,
    }
}

fn report(report: ForgeStatus) -> Option<ReportView> {
    let state = match &report.error {
        _ if !report.told => ReportState::Waiting,
        Some(_) => ReportState::Refused,
        // There was nothing to report that required a deployment of the forge's own.
        None if report.kind == StatusKind::Deployment && report.forge_id.is_none() => return None,
        None => ReportState::Told,
    };
    Some(ReportView {
        kind: report.kind,
        phase: report.phase,
        state,
        error: report.error,
    })
}

fn is_last_with(db: &rusqlite::Connection, row: &Deployment, live: &ReleaseId) -> Result<bool> {
    let switched = row.state.is_switched() || matches!(row.state, State::Live | State::Failed);
    Ok(switched && deployments::last_of_release(db, live)?.as_ref() == Some(&row.id))
}

fn step(record: steps::Record) -> StepView {
    StepView {
        name: record.name,
        state: match record.state.as_str() {
            "done" => StepState::Done,
            "failed" => StepState::Failed,
            "stopped" => StepState::Stopped,
            _ => StepState::Started,
        },
        started_at: rfc3339(record.started_at),
        ended_at: record.ended_at.map(rfc3339),
        detail: record.detail,
    }
}

pub fn release(db: &rusqlite::Connection, row: Release, serving: &Serving) -> Result<ReleaseView> {
    let web = row.main();
    let image = web.map(|service| service.image.clone());
    let image_id = web.map(|service| service.image_id.clone());
    let image_digest = web.and_then(|service| service.image_digest.clone());
    Ok(ReleaseView {
        image_digest,
        provenance: row.provenance,
        current: serving.live.as_ref() == Some(&row.id),
        id: row.id.to_string(),
        app: row.app.to_string(),
        deployment: row.deployment.to_string(),
        commit: row.commit.to_string(),
        message: row.message,
        author: row.author,
        image: image.unwrap_or_default(),
        image_id: image_id.unwrap_or_default(),
        created_at: rfc3339(row.created_at),
        live_at: row.went_live.map(rfc3339),
        kept: row.went_live.is_some() && row.removed_at.is_none(),
        failed_bake: deployments::was_rolled_back(db, &row.id)?,
        gone: false,
    })
}

pub fn app(db: &rusqlite::Connection, app: &crate::config::App) -> Result<AppView> {
    let mut shown = lost_app(db, &app.name)?;
    for scale in crate::deploy::scale::recorded(db, app)? {
        let processes = shown.instances.iter_mut().flat_map(|it| &mut it.processes);
        let mut its = processes.filter(|it| it.name == scale.service.as_str());
        if let (Some(process), Some(_)) = (its.next(), scale.asked) {
            process.configured = Some(scale.configured);
            // Also while the deployment that brings it is on its way.
            process.wanted = scale.asked.unwrap_or(process.wanted);
        }
    }
    Ok(AppView {
        configured: true,
        repo: repo(&app.repo),
        branch: match app.image() {
            Some(_) => String::new(),
            None => app.branch.clone(),
        },
        domains: app.domains.clone(),
        ..shown
    })
}

/// An app that is no longer in deploy.toml.
pub fn lost_app(db: &rusqlite::Connection, name: &AppName) -> Result<AppView> {
    let last = deployments::list(db, name, None, 1)?.into_iter().next();
    let running = deployments::running(db, name)?;
    Ok(AppView {
        deployment: last.map(|row| deployment(db, row)).transpose()?,
        running: running.map(|row| deployment(db, row)).transpose()?,
        ..without_deployments(db, name)?
    })
}

/// An app as it serves; what deploy.toml says of it, and its deployments, are left out.
pub fn without_deployments(db: &rusqlite::Connection, name: &AppName) -> Result<AppView> {
    let serving = crate::store::apps::serving(db, name)?;
    let live = match &serving.live {
        Some(id) => crate::store::releases::get(db, id)?,
        None => None,
    };
    let instances = live.as_ref().map(|live| instances(db, live)).transpose()?;
    Ok(AppView {
        name: name.to_string(),
        configured: false,
        repo: String::new(),
        branch: String::new(),
        domains: crate::deploy::routes::hosts(db, name)?,
        release: live.map(|row| release(db, row, &serving)).transpose()?,
        deployment: None,
        running: None,
        instances,
        stopped: crate::store::apps::stopped(db, name)?.map(|stopped| StoppedView {
            at: rfc3339(stopped.at),
            by: stopped.by.map_or(String::new(), |by| by.to_string()),
        }),
        problems: Vec::new(),
    })
}

/// The instances of a live release that are recorded, all of which should serve.
fn instances(db: &rusqlite::Connection, live: &Release) -> Result<InstancesView> {
    let all = crate::store::instances::of_release(db, &live.id)?;
    let process = |service: &Service| {
        let its = all.iter().filter(|it| it.service == service.name);
        let names: Vec<_> = its.map(|it| it.name.clone()).collect();
        ProcessView {
            name: service.name.to_string(),
            wanted: service.replicas,
            serving: names.len() as u32,
            configured: None,
            names,
        }
    };
    let mut services: Vec<_> = live.services.iter().collect();
    services.sort_by_key(|it| (it.port.is_none(), it.name.clone()));
    Ok(InstancesView {
        wanted: live.services.iter().map(|service| service.replicas).sum(),
        serving: all.len() as u32,
        processes: services.into_iter().map(process).collect(),
    })
}

fn repo(repo: &crate::config::Repo) -> String {
    match repo {
        crate::config::Repo::Http(url) | crate::config::Repo::Ssh(url) => url.clone(),
        crate::config::Repo::Local(path) => path.display().to_string(),
        crate::config::Repo::Image(image) => image.to_string(),
    }
}

/// RFC 3339 in UTC, with milliseconds.
pub fn rfc3339(millis: i64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
