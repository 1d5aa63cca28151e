//! What a deployment that was asked for came to, as words and as exit code.

use serde_json::Value;

use super::client::{Client, follow, view};
use super::{Error, print, words};

/// Says that a deployment is queued, or follows it to its end.
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
    print::line(format_args!("Follow it with `cutover logs {app} --follow`"));
    Ok(())
}

/// Prints a deployment's log as it comes, and how it ended. Ctrl-C stops that and nothing else.
pub async fn follow(client: &Client, id: &str, json: bool) -> Result<(), Error> {
    // With --json, stdout is for the deployment alone.
    let line = |text: &str| match json {
        true => eprintln!("{text}"),
        false => print::line(text),
    };
    let deployment = tokio::select! {
        ended = follow::to_the_end(client, id, line) => ended?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nStopped following; deployment `{id}` goes on. See `cutover show {id}`");
            // As a shell reports a program that Ctrl-C ended.
            std::process::exit(130);
        }
    };
    if json {
        print::json(&client.get(&format!("/api/v1/deployments/{id}")).await?);
    }
    of(&deployment, |text| {
        if !json {
            print::line(text);
        }
    })
}

/// Says how a deployment ended; an error unless it is live.
pub fn of(deployment: &view::Deployment, say: impl Fn(&str)) -> Result<(), Error> {
    let view::Deployment { id, app, state, .. } = deployment;
    if state == "live" {
        let image = deployment.image.as_deref().unwrap_or("its release");
        let took = deployment
            .live_after()
            .map(|time| format!(" after {}", words::took(time)))
            .unwrap_or_default();
        say(&format!("`{app}` is live with `{image}`{took}"));
        return Ok(());
    }
    if let Some(error) = &deployment.error
        && let "already_live" | "paths_unchanged" = error.code.as_str()
    {
        say(&format!("`{app}` stays as it is: {}", error.message));
        return Ok(());
    }
    let why = match &deployment.error {
        Some(error) => format!(
            "deployment `{id}` of `{app}` {}: {}",
            ended(state),
            error.message
        ),
        None => format!("deployment `{id}` of `{app}` {}", ended(state)),
    };
    let error = Error::failed(why);
    Err(match state.as_str() {
        "failed" | "rolled_back" => error.hint(format!(
            "what was live before still serves; the whole log: `cutover logs {app} --deployment {id}`"
        )),
        "superseded" => error.hint("a newer push took its place"),
        "stuck" => error.hint("it could not be undone: `cutover doctor` and the agent's log say more"),
        _ => error,
    })
}

fn ended(state: &str) -> String {
    match state {
        "failed" => "failed".to_owned(),
        "superseded" | "cancelled" => format!("was {state}"),
        "rolled_back" => "was rolled back".to_owned(),
        other => format!("is {other}"),
    }
}
