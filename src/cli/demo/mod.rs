//! `cutover demo`: everything that Cutover is mainly for, on this machine, with measurements. The tests
//! compile the stage that it uses into themselves.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::agent::Agent;
use self::screen::Screen;
use self::stage::Stage;
use super::{Error, setup};

mod agent;
mod cleanup;
mod forge;
mod http;
mod load;
mod repository;
mod sample;
mod scenario;
mod screen;
mod stage;

/// Demonstrate Cutover on this machine: pushes under load, a broken one, a rollback
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop and clean up at the end, instead of keeping everything running until Ctrl-C
    #[arg(long)]
    exit: bool,
}

/// The sections of deploy.toml after the app's repository. No domain, so that a browser finds the app
/// under any name, and no bake, so that the audience need not wait for it.
const SETTINGS: &str = r#"
[apps.hello.health]
path = "/health"
deadline = "10s"
[apps.hello.deploy]
drain = "10s"
bake = "0s"
[apps.hello.run]
env = { GREETING = "from deploy.toml" }
"#;

/// Runs the demo. Returns an error if anything was not as promised. In any case, what it created is
/// removed.
pub async fn run(args: Demo) -> Result<(), Error> {
    crate::source::init();
    let screen = Screen::new();
    screen.title();
    setup::ensure(setup::DEFAULT_HOST, |step| screen.note(step)).await?;
    // Checked before anything is created.
    sample::files("v1", "")?;
    let folder = folder()?;
    let listen = free_or_any(9000);
    let http = free_or_any(8080);
    let stage = Stage::set(&folder, &listen, &http, SETTINGS)?;
    let program = std::env::current_exe().map_err(|error| {
        Error::failed("failed to find the path of `cutover` itself").because(&error)
    })?;
    screen.done(format_args!(
        "created a repository, a sample app and deploy.toml: {}",
        stage.folder.display()
    ));

    let mut agent = None;
    let played = tokio::select! {
        played = play(&args, &screen, &stage, &program, &mut agent) => played,
        () = told_to_stop() => Ok(()),
    };
    screen.clear();
    let cleaned = clean_up(&screen, &stage, agent).await;
    played.and(cleaned)
}

async fn play(
    args: &Demo,
    screen: &Screen,
    stage: &Stage,
    program: &std::path::Path,
    slot: &mut Option<Agent>,
) -> Result<(), Error> {
    screen.wait("starting the agent and the proxy");
    // Kept by the caller, so that the agent is stopped in an orderly way whenever this future is
    // dropped.
    let agent = slot.insert(stage.serve(program, &[]).await?);
    screen.done(format_args!(
        "the agent and the proxy serve; its API is at http://{}",
        agent.address
    ));
    scenario::play(screen, stage, agent).await?;
    if !args.exit {
        // Something that works, to be deployed by hand: the tip of the branch is the broken v3.
        stage.commit("main", &sample::files("v4", "")?, "Say v4")?;
        screen.what_now(stage, agent, program);
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn clean_up(screen: &Screen, stage: &Stage, agent: Option<Agent>) -> Result<(), Error> {
    screen.wait("stopping the agent and removing what it created");
    if let Some(mut agent) = agent {
        agent.stop().await?;
    }
    stage.clear().await?;
    let folder = stage.folder.display();
    std::fs::remove_dir_all(&stage.folder)
        .map_err(|error| Error::failed(format!("failed to remove `{folder}`")).because(&error))?;
    screen.done(format_args!("stopped, and removed everything"));
    Ok(())
}

fn folder() -> Result<PathBuf, Error> {
    let mut id = [0u8; 4];
    let _ = getrandom::fill(&mut id);
    let folder = std::env::temp_dir().join(format!("cutover-demo-{}", hex::encode(id)));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|error| {
            Error::usage(format!("failed to create `{}`", folder.display())).because(&error)
        })?;
    Ok(folder)
}

/// This port on the loopback address, or any free one if it is in use.
fn free_or_any(port: u16) -> String {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    format!("127.0.0.1:{}", if free { port } else { 0 })
}

async fn told_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
