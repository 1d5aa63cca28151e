//! The outcome of a requested deployment, in words and as an exit code.

use serde_json::Value;

use super::client::{Client, follow, view};
use super::{Error, print, words};

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
    print::line(format_args!("Follow it with `cutover logs {app} --follow`"));
    Ok(())
}

/// Prints a deployment's log as it grows, and how it ended. Ctrl-C stops only the printing.
pub async fn follow(client: &Client, id: &str, json: bool) -> Result<(), Error> {
    // With --json, only the deployment goes to stdout.
    let line = |text: &str| match json {
        true => eprintln!("{text}"),
        false => print::line(text),
    };
    let deployment = tokio::select! {
        ended = follow::to_the_end(client, id, line) => ended?,
        _ = tokio::signal::ctrl_c() => {
            eprintln!("\nStopped following; deployment `{id}` continues. See `cutover show {id}`");
            // The exit code of a program that Ctrl-C has ended, as in a shell.
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

/// Says how a deployment ended. Returns an error unless it is live or there was nothing to do.
pub fn of(deployment: &view::Deployment, say: impl Fn(&str)) -> Result<(), Error> {
    let view::Deployment { id, app, state, .. } = deployment;
    let error = deployment.error.as_ref();
    let why = error.map_or("", |error| error.message.as_str());
    if state == "live" {
        let image = deployment.image.as_deref().unwrap_or("its release");
        let took = deployment
            .live_after()
            .map(|time| format!(" after {}", words::took(time)))
            .unwrap_or_default();
        say(&format!("`{app}` is live with `{image}`{took}"));
        return Ok(());
    }
    // A push that was superseded is not a failure if the commit that it asked for is live.
    if state == "skipped" || error.is_some_and(|error| error.code == "already_live") {
        say(&format!("`{app}` is unchanged: {why}"));
        return Ok(());
    }
    let ended = match state.as_str() {
        "failed" => "failed".to_owned(),
        "superseded" | "cancelled" => format!("was {state}"),
        "rolled_back" => "was rolled back".to_owned(),
        other => format!("is {other}"),
    };
    let colon = if why.is_empty() { "" } else { ": " };
    let failed = Error::failed(format!("deployment `{id}` of `{app}` {ended}{colon}{why}"));
    Err(match state.as_str() {
        // There may have been no release before this one.
        "failed" => failed.hint(format!(
            "what was live before is unchanged; see the full log with \
             `cutover logs {app} --deployment {id}`"
        )),
        // The rollback is a separate deployment, which may not have switched yet.
        "rolled_back" => failed.hint(format!(
            "the previous release comes back; `cutover status {app}` shows when it is live"
        )),
        "superseded" => failed.hint(format!(
            "follow the newer one with `cutover logs {app} --follow`"
        )),
        "cancelled" => failed.hint(format!("deploy again with `cutover deploy {app}`")),
        "stuck" => failed
            .hint("the agent failed to undo it; run `cutover doctor` and read the agent's log"),
        _ => failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    fn ended(state: State, code: Option<&str>) -> view::Deployment {
        view::Deployment {
            state: state.to_string(),
            error: code.map(|code| view::Failure {
                code: code.into(),
                message: "why".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn only_what_left_the_app_without_what_was_asked_for_is_a_failure() {
        for state in State::ALL.into_iter().filter(|state| state.is_rest()) {
            let fine = of(&ended(state, None), |_| {}).is_ok();
            assert_eq!(
                fine,
                matches!(state, State::Live | State::Skipped),
                "{state}"
            );
        }
        assert!(of(&ended(State::Superseded, Some("already_live")), |_| {}).is_ok());
    }

    #[test]
    fn every_failure_has_a_hint_of_its_own() {
        let mut hints = Vec::new();
        for state in State::ALL.into_iter().filter(|state| state.is_rest()) {
            if let Err(error) = of(&ended(state, Some("code")), |_| {}) {
                let text = error.to_string();
                assert!(text.contains("why"), "{text}");
                let hint = text.split_once("Hint: ").map(|(_, hint)| hint.to_owned());
                hints.push(hint.unwrap_or_else(|| panic!("{state}: {text}")));
            }
        }
        hints.sort();
        hints.dedup();
        assert_eq!(hints.len(), 5, "{hints:#?}");
    }
}
