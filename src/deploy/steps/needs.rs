//! What a test needs beside it: throw-away containers on a network of their own.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::config::{Image, Need};
use crate::deploy::line::{Line, Stop};
use crate::deploy::{Agent, environment};
use crate::engine::{EngineError, NeedLook, NeedSpec, Status, advice};
use crate::ids::{AppName, ServiceName};
use crate::store::jobs::{Job, JobKind};
use crate::store::releases::Release;
use crate::store::services::Service;
use crate::store::settings::{Container, Settings};

const PAUSE: Duration = Duration::from_millis(100);
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How many of its last lines explain a failure.
const TAIL: usize = 20;

/// A container that the test needs.
pub struct Needed<'a> {
    pub name: &'a ServiceName,
    pub need: &'a Need,
    pub job: Job,
}

/// What is recorded before any of it is made.
pub fn planned<'a>(line: &Line<'a>, release: &Release) -> Vec<Needed<'a>> {
    let test = line.app.test.iter();
    let needs = test.flat_map(|test| &test.needs);
    let planned = needs.map(|(name, need)| {
        let container = format!("cutover-{}-{}-test-{name}", line.app.name, line.id);
        let (app, of, id) = (line.app.name.clone(), release.id.clone(), line.id.clone());
        let job = Job::new(container, app, of, JobKind::Test, Some(id));
        Needed { name, need, job }
    });
    planned.collect()
}

/// Starts all of them, and waits until they are ready. Returns what they are, for the record; `pull` gets their
/// images anew.
pub async fn start(
    line: &Line<'_>,
    main: &Service,
    needed: &[Needed<'_>],
    pull: bool,
) -> Result<Vec<String>, Stop> {
    let mut what = Vec::new();
    for needed in needed {
        what.push(begin(line, main, needed, pull).await?);
    }
    try_join_all(needed.iter().map(|needed| ready(line, needed))).await?;
    Ok(what)
}

async fn begin(
    line: &Line<'_>,
    main: &Service,
    needed: &Needed<'_>,
    pull: bool,
) -> Result<String, Stop> {
    let Needed { name, need, job } = needed;
    let image_id = image(line, name, &need.image, pull).await?;
    let what = resolved(line, &need.image, &image_id).await?;
    let what = format!("`{name}` from `{what}`");
    line.log.line(&format!("[test] starting {what}"));
    let environment = environment::of_need(name, &need.env).await?;
    let service = Service {
        name: (*name).clone(),
        image: need.image.to_string(),
        image_id,
        image_digest: None,
        settings: Settings {
            command: need.command.clone(),
            memory: Some(need.memory),
            cpus: need.cpus,
            env: Default::default(),
            kept: Default::default(),
            env_file: None,
            secrets: Default::default(),
            secret_files: Default::default(),
            capabilities: Vec::new(),
            volumes: Vec::new(),
            links: Vec::new(),
            container: Container::default(),
            ..main.settings.clone()
        },
        replicas: 1,
        port: None,
        protocol: main.protocol,
    };
    let spec = NeedSpec {
        job,
        name: name.as_str(),
        service: &service,
        environment: &environment,
    };
    line.agent.engine.start_need(&spec).await?;
    Ok(what)
}

/// The name with the image's digest; one that was in no registry has its id.
async fn resolved(line: &Line<'_>, image: &Image, id: &str) -> Result<String, Stop> {
    let known = line.agent.engine.known_digest(id, image).await?;
    let image = Image {
        digest: known.or_else(|| image.digest.clone()),
        ..image.clone()
    };
    Ok(match image.digest {
        Some(_) => image.to_string(),
        None => format!("{image}, {id}"),
    })
}

/// The id of an image, which is pulled if the engine does not have it.
async fn image(
    line: &Line<'_>,
    name: &ServiceName,
    image: &Image,
    pull: bool,
) -> Result<String, Stop> {
    let engine = &line.agent.engine;
    if let Some(id) = engine.image_id(&image.pinned()).await?
        && !pull
    {
        return Ok(id);
    }
    line.log
        .line(&format!("[test] pulling `{image}` for `{name}`"));
    engine.pull(image, None).await.map_err(|error| match error {
        EngineError::Unreachable { .. } => error.into(),
        error => Stop::failed(
            "need_failed",
            format!("{error}; {}", advice::of_registry(&error)),
        ),
    })
}

async fn ready(line: &Line<'_>, needed: &Needed<'_>) -> Result<(), Stop> {
    let Needed { name, need, job } = needed;
    let begun = Instant::now();
    let engine = &line.agent.engine;
    loop {
        let look = engine.look_at_need(&job.ours()).await?;
        if is_ready(&look, need).await {
            let seconds = begun.elapsed().as_secs_f32();
            line.log
                .line(&format!("[test] `{name}` is ready after {seconds:.1} s"));
            return Ok(());
        }
        let what = match look.status {
            Status::Running if begun.elapsed() < need.deadline => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Status::Running => format!(
                "`{name}`, which the test needs, {} within {:?}; correct `test.needs.{name}`, or raise its \
                 `deadline`",
                missing(&look, need),
                need.deadline
            ),
            Status::Exited(code, out_of_memory) => format!(
                "`{name}`, which the test needs, exited with code {code} before it was ready{}",
                match out_of_memory {
                    true => format!(", out of memory: raise `test.needs.{name}.memory`"),
                    false => format!("; correct `test.needs.{name}`"),
                }
            ),
            Status::Missing => format!("`{name}`, which the test needs, was removed"),
        };
        let tail = engine.log_tail(&job.ours(), TAIL).await.unwrap_or_default();
        return Err(Stop::failed("need_failed", what).with_tail(tail));
    }
}

async fn is_ready(look: &NeedLook, need: &Need) -> bool {
    if look.status != Status::Running {
        return false;
    }
    match (port(look, need), look.address) {
        (Some(port), Some(address)) => {
            let connect = TcpStream::connect((address, port));
            matches!(tokio::time::timeout(CONNECT, connect).await, Ok(Ok(_)))
        }
        (Some(_), None) => false,
        (None, _) => look.healthy.unwrap_or(true),
    }
}

/// The port that is waited for; `None` if its health check is, or nothing.
fn port(look: &NeedLook, need: &Need) -> Option<u16> {
    match look.healthy {
        Some(_) => need.port,
        None => need.port.or(look.exposed),
    }
}

fn missing(look: &NeedLook, need: &Need) -> String {
    match port(look, need) {
        Some(port) => format!("accepted no connection on port {port}"),
        None => "was not healthy by its image's `HEALTHCHECK`".to_owned(),
    }
}

/// Adds their last lines to the log, for whoever asks why the test failed.
pub async fn say_tails(line: &Line<'_>, needed: &[Needed<'_>]) {
    for Needed { name, job, .. } in needed {
        let tail = line.agent.engine.log_tail(&job.ours(), TAIL).await;
        for said in tail.unwrap_or_default() {
            line.log.line(&format!("[{name}] {said}"));
        }
    }
}

/// Removes the network, on which there is no container of ours any more.
pub async fn remove_network(agent: &Agent, app: &AppName) -> Result<(), EngineError> {
    match agent.engine.remove_test_network(app).await {
        // Somebody has connected a container of his own.
        Err(error @ EngineError::Refused { .. }) => {
            tracing::warn!(%app, %error, "failed to remove the network of a test");
            Ok(())
        }
        removed => removed,
    }
}
