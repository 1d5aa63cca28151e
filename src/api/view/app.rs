//! An app as the API shows it.

use serde::Serialize;
use utoipa::ToSchema;

use super::{DeploymentView, ReleaseView, deployment, release, rfc3339};
use crate::deploy::tend::Tend;
use crate::ids::AppName;
use crate::state::State;
use crate::store::Result;
use crate::store::deployments;
use crate::store::holds::{self, Held, Hold};
use crate::store::overview::Overview;
use crate::store::releases::Release;
use crate::store::services::Service;

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
    /// What the deployment under way cannot go on without: `docker` while that does not answer; otherwise
    /// null.
    #[schema(required, example = "docker")]
    pub waiting_for: Option<&'static str>,
    /// How many instances of the live release there should be, and how many serve; null before the first
    /// release.
    #[schema(required)]
    pub instances: Option<InstancesView>,
    /// Set while a person has stopped the app.
    #[schema(required)]
    pub stopped: Option<StoppedView>,
    /// Set while pushes are recorded and not deployed.
    #[schema(required)]
    pub pinned: Option<HeldView>,
    /// Set while a person has its visitors answered with 503.
    #[schema(required)]
    pub maintenance: Option<HeldView>,
    /// Whether a person has begun to remove the app.
    pub removing: bool,
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

/// What a person has put on an app.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Held)]
pub struct HeldView {
    #[schema(format = DateTime, example = "2026-05-04T09:30:01.020Z")]
    pub at: String,
    #[schema(example = "token `admin`")]
    pub by: String,
    /// Why, or what visitors read; null if nothing was said.
    #[schema(required, example = "until Monday")]
    pub text: Option<String>,
}

impl From<Held> for HeldView {
    fn from(it: Held) -> Self {
        Self {
            at: rfc3339(it.at),
            by: it.by.to_string(),
            text: it.text,
        }
    }
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
        if let Some(running) = &self.running
            && waits_for_engine(tend, running.state)
        {
            self.waiting_for = Some("docker");
        }
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

/// Whether a deployment in this state cannot go on until the engine answers again.
pub fn waits_for_engine(tend: &Tend, state: State) -> bool {
    tend.engine_away_since().is_some() && (State::Building..State::Switching).contains(&state)
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
fn without_deployments(db: &rusqlite::Connection, name: &AppName) -> Result<AppView> {
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
        waiting_for: None,
        instances,
        stopped: crate::store::apps::stopped(db, name)?.map(|stopped| StoppedView {
            at: rfc3339(stopped.at),
            by: stopped.by.map_or(String::new(), |by| by.to_string()),
        }),
        pinned: holds::of(db, name, Hold::Pin)?.map(HeldView::from),
        maintenance: holds::of(db, name, Hold::Maintenance)?.map(HeldView::from),
        removing: crate::store::app_names::is_being_removed(db, name)?,
        problems: Vec::new(),
    })
}

/// An app of a list: whether it serves, and nothing else of it.
pub fn as_it_serves(name: &AppName, configured: bool, of: &Overview) -> AppView {
    let process = |it: &crate::store::overview::Service| ProcessView {
        name: it.name.clone(),
        wanted: it.replicas,
        serving: it.instances.len() as u32,
        configured: None,
        names: it.instances.clone(),
    };
    let processes: Vec<_> = of.services.iter().map(process).collect();
    AppView {
        name: name.to_string(),
        configured,
        repo: String::new(),
        branch: String::new(),
        domains: Vec::new(),
        release: None,
        deployment: None,
        running: None,
        waiting_for: None,
        instances: of.live.as_ref().map(|_| InstancesView {
            wanted: processes.iter().map(|it| it.wanted).sum(),
            serving: processes.iter().map(|it| it.serving).sum(),
            processes,
        }),
        stopped: of.is_stopped.then(|| StoppedView {
            at: String::new(),
            by: String::new(),
        }),
        pinned: None,
        maintenance: None,
        removing: of.is_being_removed,
        problems: Vec::new(),
    }
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
