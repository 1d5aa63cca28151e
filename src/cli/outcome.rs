//! The outcome of a requested deployment, in words and as an exit code.

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::client::follow::{Following, Until};
use super::client::{Client, view};
use super::{Error, print};
use crate::deploy::ending::Said;

/// Reports that a deployment is queued, or follows it to its end.
pub async fn after(client: &Client, answer: Value, go_on: bool, json: bool) -> Result<(), Error> {
    let deployment: view::Deployment = view::read(&answer)?;
    if go_on {
        return follow(client, &deployment.id, json).await;
    }
    if json {
        print::json(&answer);
        return Ok(());
    }
    let view::Deployment { id, app, state, .. } = deployment;
    print::line(format_args!("Deployment `{id}` of `{app}` is {state}"));
    print::line(format_args!("Follow it with `cutover logs {id} --follow`"));
    Ok(())
}

/// Prints a deployment's log as it grows, when it serves, and how it ended. Ctrl-C stops only the
/// printing.
pub async fn follow(client: &Client, id: &str, json: bool) -> Result<(), Error> {
    // With --json, only the deployment goes to stdout.
    let line = |text: &str| match json {
        true => print::error(text),
        false => print::line(text),
    };
    // One for the whole time: between two of them a signal would be lost.
    let mut interrupt = signal(SignalKind::interrupt()).ok();
    let mut following = Following::new(client, id);
    let mut deployment = tokio::select! {
        reached = following.until(Until::Switch, line) => reached?,
        () = stopped(&mut interrupt) => leave(id, false),
    };
    let was_serving = deployment.is_serving();
    if was_serving {
        let mut said = deployment.ending().said().to_string();
        if deployment.ending().watched {
            said += "; Ctrl-C leaves it watching";
        }
        line(&said);
        deployment = tokio::select! {
            ended = following.until(Until::End, line) => ended?,
            () = stopped(&mut interrupt) => leave(id, true),
        };
    }
    if json {
        print::json(&client.get(&format!("/api/v1/deployments/{id}")).await?);
    }
    of(&deployment, |text| {
        // That it is live has been said at the switch.
        if !json && !was_serving {
            print::line(text);
        }
    })
}

async fn stopped(interrupt: &mut Option<Signal>) {
    match interrupt {
        Some(signal) => {
            signal.recv().await;
        }
        // Without a handler, the signal ends the program anyway.
        None => std::future::pending().await,
    }
}

/// Ends the program after Ctrl-C, which the deployment does not notice.
fn leave(id: &str, serves: bool) -> ! {
    let more = match serves {
        true => String::new(),
        false => format!(", cancel it with `cutover cancel {id}`"),
    };
    eprintln!(
        "\nStopped following; deployment `{id}` continues. Follow it again with \
         `cutover logs {id} --follow`{more}"
    );
    // The exit code of a program that Ctrl-C has ended, as in a shell.
    std::process::exit(130);
}

/// Says how a deployment ended, or that it serves. Returns an error unless it is live or there was
/// nothing to do.
pub fn of(deployment: &view::Deployment, say: impl Fn(&str)) -> Result<(), Error> {
    match deployment.ending().said() {
        Said::Good(text) => {
            say(&text);
            Ok(())
        }
        Said::Bad { what, hint } => Err(Error::failed(what).hint(hint)),
    }
}
