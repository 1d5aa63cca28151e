//! A deployment as the API shows it.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::{RequesterView, rfc3339};
use crate::ids::ReleaseId;
use crate::proxy::control::Receipt;
use crate::state::{State, Step};
use crate::store::deployments::{self, Deployment, Failure, Goal, Trigger};
use crate::store::provenance::Provenance;
use crate::store::releases::Release;
use crate::store::results::{self, Results};
use crate::store::statuses::{self, ForgeStatus, StatusKind, StatusPhase};
use crate::store::{Result, Store, steps, volumes};

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
    /// What the image's test said of its single tests; null if it says nothing of them.
    #[schema(required)]
    pub tests: Option<Results>,
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

/// A deployment as it is shown now.
pub async fn shown(store: &Store, row: Deployment) -> Result<DeploymentView> {
    store.read(move |db| deployment(db, row)).await
}

/// The deployment that a change has queued, if it needed one.
pub async fn queued(store: &Store, row: Option<Deployment>) -> Result<Option<DeploymentView>> {
    match row {
        Some(row) => shown(store, row).await.map(Some),
        None => Ok(None),
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
    let tests = results::of(db, &row.id)?;
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
        tests,
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
