//! The command line, with one file for each verb. [`serve`] is the only place that wires the agent
//! together.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};

pub mod adopt;
pub mod audit;
pub mod cancel;
pub mod certificates;
pub mod check;
pub mod client;
pub mod completions;
pub mod configuration;
pub mod confirm;
pub mod cron;
mod demo;
pub mod deploy;
pub mod deployments;
pub mod doctor;
pub mod env;
pub mod error;
pub mod gc;
pub mod hold;
pub mod init;
mod kept;
pub mod log_level;
pub mod logs;
pub mod notice;
pub mod notify;
pub mod open;
pub mod outcome;
pub mod print;
pub mod proxy;
pub mod ps;
pub mod receive;
pub mod releases;
pub mod reload;
pub mod remove;
pub mod restart;
pub mod rollback;
pub mod scale;
pub mod secret;
pub mod serve;
pub mod session;
pub mod setup;
pub mod show;
pub mod shutdown;
pub mod status;
pub mod stop;
pub mod table;
pub mod telemetry;
pub mod token;
pub mod words;

pub use error::Error;

/// Push a commit, and the new containers take over without one dropped request.
#[derive(Debug, Parser)]
#[command(
    name = "cutover",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 success, 1 the deployment failed, 2 usage or configuration error, \
                  3 the agent cannot be reached."
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Configuration file [default: `./deploy.toml`, then `/etc/cutover/deploy.toml`]
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "CUTOVER_CONFIG",
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub config: Option<PathBuf>,
    /// Address of a remote agent, whose token is read from CUTOVER_TOKEN
    #[arg(long, global = true, value_name = "URL", env = "CUTOVER_URL")]
    pub url: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Serve(serve::Serve),
    Proxy(proxy::Proxy),
    Check(check::Check),
    Init(init::Init),
    Setup(setup::Setup),
    Demo(demo::Demo),
    Deploy(deploy::Deploy),
    Rollback(rollback::Rollback),
    Restart(restart::Restart),
    Scale(scale::Scale),
    Stop(stop::Stop),
    Start(stop::Start),
    Pin(hold::Pin),
    Unpin(hold::Unpin),
    Maintenance(hold::Maintenance),
    Status(status::Status),
    Deployments(deployments::Deployments),
    Releases(releases::Releases),
    Ps(ps::Ps),
    Show(show::Show),
    Logs(logs::Logs),
    Cron(cron::Cron),
    Run(session::Run),
    Exec(session::Exec),
    Cancel(cancel::Cancel),
    Certificates(certificates::Certificates),
    Reload(reload::Reload),
    Remove(remove::Remove),
    Adopt(adopt::Adopt),
    Gc(gc::Gc),
    Audit(audit::Audit),
    LogLevel(log_level::LogLevel),
    Doctor(doctor::Doctor),
    Open(open::Open),
    Notify(notify::Notify),
    #[command(hide = true)]
    Receive(receive::Receive),
    Token(token::Token),
    Secret(secret::Secret),
    Env(env::Env),
    Completions(completions::Completions),
}

/// Runs one verb to its end and returns the process's exit code.
pub fn run(cli: Cli) -> ExitCode {
    telemetry::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::usage("failed to start the runtime's threads").because(&error);
            return error.report();
        }
    };
    let ended = runtime.block_on(dispatch(cli));
    // A blocked read of stdin or a slow name lookup must not delay the exit.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match ended {
        Ok(code) => code,
        Err(error) => error.report(),
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode, Error> {
    // An empty variable is none, as units and pipelines have them.
    let global = Global {
        config: cli.global.config.filter(|it| !it.as_os_str().is_empty()),
        url: cli.global.url.filter(|it| !it.is_empty()),
    };
    let ended = match cli.verb {
        // The exit code is that of somebody else's program.
        Verb::Run(args) => return session::run(args, &global).await,
        Verb::Exec(args) => return session::exec(args, &global).await,
        Verb::Serve(args) => serve::run(args, &global).await,
        Verb::Proxy(args) => proxy::run(args, &global).await,
        Verb::Check(args) => check::run(args, &global).await,
        Verb::Init(args) => init::run(args, &global),
        Verb::Setup(args) => setup::run(args, &global).await,
        Verb::Demo(args) => demo::run(args).await,
        Verb::Deploy(args) => deploy::run(args, &global).await,
        Verb::Rollback(args) => rollback::run(args, &global).await,
        Verb::Restart(args) => restart::run(args, &global).await,
        Verb::Scale(args) => scale::run(args, &global).await,
        Verb::Stop(args) => stop::stop(args, &global).await,
        Verb::Start(args) => stop::start(args, &global).await,
        Verb::Pin(args) => hold::pin(args, &global).await,
        Verb::Unpin(args) => hold::unpin(args, &global).await,
        Verb::Maintenance(args) => hold::maintenance(args, &global).await,
        Verb::Status(args) => status::run(args, &global).await,
        Verb::Deployments(args) => deployments::run(args, &global).await,
        Verb::Releases(args) => releases::run(args, &global).await,
        Verb::Ps(args) => ps::run(args, &global).await,
        Verb::Show(args) => show::run(args, &global).await,
        Verb::Logs(args) => logs::run(args, &global).await,
        Verb::Cron(args) => cron::run(args, &global).await,
        Verb::Cancel(args) => cancel::run(args, &global).await,
        Verb::Certificates(args) => certificates::run(args, &global).await,
        Verb::Reload(args) => reload::run(args, &global).await,
        Verb::Remove(args) => remove::run(args, &global).await,
        Verb::Adopt(args) => adopt::run(args, &global).await,
        Verb::Gc(args) => gc::run(args, &global).await,
        Verb::Receive(args) => receive::run(args, &global).await,
        Verb::Audit(args) => audit::run(args, &global).await,
        Verb::LogLevel(args) => log_level::run(args, &global).await,
        Verb::Doctor(args) => doctor::run(args, &global).await,
        Verb::Notify(args) => notify::run(args, &global).await,
        Verb::Open(args) => open::run(args, &global).await,
        Verb::Token(args) => token::run(args, &global).await,
        Verb::Secret(args) => secret::run(args, &global).await,
        Verb::Env(args) => env::run(args, &global).await,
        Verb::Completions(args) => completions::run(args),
    };
    ended.map(|()| ExitCode::SUCCESS)
}
