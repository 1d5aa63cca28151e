//! The forge is told the truth about each deployment, whatever the forge or the agent go through.

use std::time::Duration;

use crate::forge::{Forge, Mood, Seen, TOKEN, jwt};
use crate::server::{APP, File, SETTINGS, Server, files};
use crate::support::demo::forge;
use crate::support::docker::docker;
use rustix::process::{Pid, Signal, kill_process};

/// A server whose app reports to `forge`.
async fn reporting(forge: &Forge, kind: &str) -> Server {
    let settings = format!("{SETTINGS}\n{}", forge.settings(kind));
    let mut server = Server::idle(&settings).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    server.serve().await;
    server
}

/// Waits until a deployment's report of this kind is in one of these states; gives it.
async fn report(server: &Server, id: &str, kind: &str, state: &str) -> serde_json::Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let shown = server.api(&format!("/api/v1/deployments/{id}")).await;
        let reports = shown["reports"].as_array().cloned().unwrap_or_default();
        let mut found = reports.iter().filter(|report| report["kind"] == kind);
        if let Some(found) = found.find(|report| report["state"] == state) {
            return found.clone();
        }
        let late = tokio::time::Instant::now() > deadline;
        assert!(
            !late,
            "no {kind} is {state}: {reports:#?}\n{}",
            server.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn github_sees_pending_then_how_it_ended() {
    let forge = Forge::start().await;
    let mut server = reporting(&forge, "github").await;

    let live = server.go_live("v1").await;
    let states = forge.until_state(&live.commit.unwrap(), "success").await;
    assert!(states.len() >= 2, "{states:?}");
    let (last, before) = states.split_last().unwrap();
    assert_eq!(last, "success");
    assert!(before.iter().all(|state| state == "pending"), "{states:?}");

    let id = server.push("v2", "exit-at-start").await;
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed", "{log:#?}");
    let step = failed.error.unwrap().step.unwrap();
    let commit = failed.commit.unwrap();
    let states = forge.until_state(&commit, "failure").await;
    let (_, before) = states.split_last().unwrap();
    assert!(before.iter().all(|state| state == "pending"), "{states:?}");
    let of_commit = |seen: &Seen| seen.path.contains(&commit);
    let last = forge.seen().into_iter().rfind(of_commit).unwrap();
    assert_eq!(
        last.body["description"],
        format!("Failed at the step {step}")
    );
    assert_eq!(last.body["context"], format!("cutover/{APP}"));

    report(&server, &id, "status", "told").await;
    let shown = server.cutover(&["show", &id]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let told = |line: &str| line.starts_with("Reported") && line.ends_with("status: failed");
    assert!(shown.lines().any(told), "{shown}");
    forge.assert_all_right();
    assert!(!server.log().contains(TOKEN));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_bake_is_a_failure_until_it_runs_again() {
    let forge = Forge::start().await;
    let mut server = reporting(&forge, "github").await;
    let live = server.go_live("v1").await;
    let commit = live.commit.clone().unwrap();
    forge.until_state(&commit, "success").await;

    // Not through Docker, as an app ends by itself.
    let name = format!("cutover-{APP}-{}-0", live.id);
    let found = docker().await.inspect_container(&name, None).await.unwrap();
    let pid = found.state.unwrap().pid.unwrap() as i32;
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    forge.until_state(&commit, "failure").await;
    let of_commit = |seen: &Seen| seen.path.contains(&commit);
    let last = forge.seen().into_iter().rfind(of_commit).unwrap();
    assert_eq!(last.body["description"], "Exited after it went live");
    let shown = server
        .api(&format!("/api/v1/deployments/{}", live.id))
        .await;
    assert_eq!(shown["state"], "live", "the deployment stays what it was");

    let states = forge.until_state(&commit, "success").await;
    let last: Vec<_> = states.iter().rev().take(3).collect();
    assert_eq!(last, ["success", "failure", "success"], "{states:?}");
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_not_for_the_app_gets_no_fault() {
    let forge = Forge::start().await;
    let paths = "paths = ['Dockerfile', 'hello', 'version']";
    let settings = format!("{paths}\n{SETTINGS}\n{}", forge.settings("github"));
    let mut server = Server::idle(&settings).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    server.serve().await;
    server.go_live("v1").await;
    let mut files = files("v1", "");
    files.push(File::new("docs/README.md", "words"));
    let id = server.push_files(&files, "docs").await;
    let (ended, log) = server.ended(&id).await;
    assert_eq!(ended.error.unwrap().code, "paths_unchanged", "{log:#?}");
    let commit = ended.commit.unwrap();
    forge.until_state(&commit, "success").await;
    let of_commit = |seen: &Seen| seen.path.contains(&commit);
    let last = forge.seen().into_iter().rfind(of_commit).unwrap();
    let skipped = "Skipped: there is nothing to deploy";
    assert_eq!(last.body["description"], skipped);

    // The same where the commit itself says so, which is known before anything is fetched.
    let id = server.push_files(&files, "docs [skip ci]").await;
    let (ended, log) = server.ended(&id).await;
    assert_eq!(ended.error.unwrap().code, "skipped", "{log:#?}");
    let commit = ended.commit.unwrap();
    forge.until_state(&commit, "success").await;
    let of_commit = |seen: &Seen| seen.path.contains(&commit);
    let last = forge.seen().into_iter().rfind(of_commit).unwrap();
    assert_eq!(last.body["description"], skipped);
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_delays_no_deployment_and_loses_nothing() {
    let mut forge = Forge::start().await;
    let mut server = reporting(&forge, "github").await;

    // Nobody listens.
    forge.down().await;
    let first = server.go_live("v1").await;
    report(&server, &first.id, "status", "waiting").await;

    // The agent is killed with the news unsent, and the forge comes back broken.
    server.agent().kill().await.unwrap();
    forge.set_mood(Mood::Failing(500, vec![]));
    forge.up().await;
    server.serve().await;
    let before = forge.asked();
    forge.until_asked(before + 2).await;

    // Then it never answers: a deployment goes on all the same.
    forge.set_mood(Mood::Silent(Duration::from_secs(60)));
    let asked = forge.asked();
    forge.until_asked(asked + 1).await;
    let second = server.go_live("v2").await;

    // Then it is up again, but wants a pause.
    server.agent().kill().await.unwrap();
    let pause = vec![("retry-after", "1".to_owned())];
    forge.set_mood(Mood::Failing(429, pause));
    server.serve().await;
    let asked = forge.asked();
    forge.until_asked(asked + 1).await;
    forge.set_mood(Mood::Well);
    for deployment in [first, second] {
        let states = forge
            .until_state(&deployment.commit.unwrap(), "success")
            .await;
        // What was overtaken is not sent late.
        assert_eq!(states, ["success"]);
        report(&server, &deployment.id, "status", "told").await;
    }
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_shown_and_not_repeated() {
    let forge = Forge::start().await;
    forge.set_mood(Mood::Failing(403, vec![]));
    let mut server = reporting(&forge, "github").await;
    let live = server.go_live("v1").await;
    let told = report(&server, &live.id, "status", "refused").await;
    let error = told["error"].as_str().unwrap();
    assert!(error.contains("GitHub answered 403: not now"), "{error}");
    let shown = server.cutover(&["show", &live.id]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("status: live, rejected: GitHub answered 403"),
        "{shown}"
    );
    report(&server, &live.id, "deployment", "refused").await;
    // Of each kind at most one request for each of queued, running and live, and one warning.
    assert!(forge.asked() <= 6, "{}", forge.asked());
    let warned = server.log().matches("the forge refused the ").count();
    assert_eq!(warned, 2, "{}", server.log());
    server.stop().await;
}

async fn post(server: &Server, path: &str) -> serde_json::Value {
    let token = format!("Bearer {}", server.token());
    let request = http::Request::post(path).header("authorization", token);
    let answer = server.ask(request, "").await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()
}

/// The last state of the `number`th of GitHub's deployments.
fn last_state(forge: &Forge, number: usize) -> Option<String> {
    let deployment = forge.github_deployments().into_iter().nth(number)?;
    deployment.states().last().map(|state| (*state).to_owned())
}

async fn until_last_state(forge: &Forge, number: usize, state: &str) {
    let is = |forge: &Forge| last_state(forge, number).as_deref() == Some(state);
    forge.until(&format!("{number} {state}"), is).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn githubs_deployments_are_made_once_and_say_what_is_live() {
    let forge = Forge::start().await;
    // GitHub makes the deployment, but its answer is lost, and the agent is killed.
    forge.set_mood(Mood::Losing);
    let mut server = reporting(&forge, "github").await;
    let first = server.go_live("v1").await;
    let made = |forge: &Forge| !forge.github_deployments().is_empty();
    forge.until("made", made).await;
    server.agent().kill().await.unwrap();
    forge.set_mood(Mood::Well);
    server.serve().await;
    until_last_state(&forge, 0, "success").await;
    let all = forge.github_deployments();
    assert_eq!(all.len(), 1, "{all:#?}");
    assert_eq!(all[0].made["ref"], first.commit.clone().unwrap());
    assert_eq!(all[0].made["environment"], APP);
    let last = all[0].statuses.last().unwrap();
    assert_eq!(last["environment_url"], "http://hello.test/");

    let second = server.go_live("v2").await;
    until_last_state(&forge, 1, "success").await;
    until_last_state(&forge, 0, "inactive").await;
    let states = forge.github_deployments()[1].clone();
    let (_, before) = states
        .states()
        .split_last()
        .map(|(l, b)| (*l, b.to_vec()))
        .unwrap();
    assert!(
        before
            .iter()
            .all(|state| ["queued", "in_progress"].contains(state)),
        "{before:?}"
    );

    let third = server.push("v3", "exit-at-start").await;
    server.ended(&third).await;
    until_last_state(&forge, 2, "failure").await;
    assert_eq!(
        last_state(&forge, 1).unwrap(),
        "success",
        "it is still live"
    );

    let back = post(&server, &format!("/api/v1/apps/{APP}/rollback")).await;
    until_last_state(&forge, 3, "success").await;
    until_last_state(&forge, 1, "inactive").await;
    let all = forge.github_deployments();
    assert_eq!(all.len(), 4, "{all:#?}");
    assert_eq!(all[3].made["ref"], first.commit.unwrap());
    assert_eq!(all[3].made["payload"]["cutover"], back["id"]);
    let second = forge.states(&second.commit.unwrap());
    assert_eq!(second.last().unwrap(), "success", "it did go live");
    let told = report(&server, back["id"].as_str().unwrap(), "deployment", "told").await;
    assert_eq!(told["phase"], "live");
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_the_forge_cannot_take_holds_up_no_later_one() {
    let forge = Forge::start().await;
    let mut server = Server::idle(&format!("{SETTINGS}\n{}", forge.settings("github"))).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    let files = files("v1", "");
    let (_, broken) = server.stage.commit("main", &files, "v1").unwrap();
    forge.set_mood(Mood::Without(broken.clone()));
    server.serve().await;
    let first = post(&server, &format!("/api/v1/apps/{APP}/deployments")).await;
    let first = first["id"].as_str().unwrap();
    let (live, log) = server.ended(first).await;
    assert_eq!(live.commit.as_deref(), Some(broken.as_str()), "{log:#?}");
    // Its commit's status is told all the same, and so is a later deployment.
    forge.until_state(&broken, "success").await;
    let second = server.go_live("v2").await;
    until_last_state(&forge, 0, "success").await;
    let made = forge.github_deployments();
    assert_eq!(made[0].made["ref"], second.commit.unwrap());
    let waits = report(&server, first, "deployment", "waiting").await;
    let error = waits["error"].as_str().unwrap();
    assert!(error.contains("GitHub answered 500"), "{error}");

    // In the end there is nothing left to say of it: a later one is live.
    server.stop().await;
    forge.set_mood(Mood::Well);
    server.serve().await;
    let third = server.go_live("v3").await;
    until_last_state(&forge, 1, "success").await;
    let made = forge.github_deployments();
    assert_eq!(made[1].made["ref"], third.commit.unwrap());
    assert_eq!(made.len(), 2, "{made:#?}");
    forge.assert_all_right();
    server.stop().await;
}

/// Settings with a bake that no test waits for.
const BAKING: &str = "domains = [\"hello.test\"]\n[apps.hello.health]\ninterval = \"50ms\"\n\
                      [apps.hello.deploy]\nbake = \"60s\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_a_success_before_its_bake_is_over() {
    let forge = Forge::start().await;
    let mut server = Server::idle(&format!("{BAKING}{}", forge.settings("github"))).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    server.serve().await;
    let first = server.push("v1", "").await;
    server.until_log(&first, "[drain]").await;
    let id = server.push("v2", "").await;
    until_last_state(&forge, 0, "success").await;
    let path = format!("/api/v1/deployments/{id}");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let baking = loop {
        let shown = server.api(&path).await;
        if shown["state"] == "baking" {
            break shown;
        }
        assert!(tokio::time::Instant::now() < deadline, "{shown:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // It serves, and all that there is to tell of it has been told.
    assert_eq!(server.version().await, "v2");
    for kind in ["status", "deployment"] {
        let told = report(&server, &id, kind, "told").await;
        assert_eq!(told["phase"], "running");
    }
    let commit = baking["commit"].as_str().unwrap();
    let states = forge.states(commit);
    assert!(states.iter().all(|state| state == "pending"), "{states:?}");
    until_last_state(&forge, 1, "in_progress").await;
    assert_eq!(
        last_state(&forge, 0).unwrap(),
        "success",
        "it could come back"
    );

    // What is asked for next ends the bake.
    post(&server, &format!("/api/v1/apps/{APP}/rollback")).await;
    forge.until_state(commit, "success").await;
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_rolled_back_was_never_a_success() {
    let forge = Forge::start().await;
    let mut server = Server::idle(&format!("{BAKING}{}", forge.settings("github"))).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    server.serve().await;
    let first = server.push("v1", "").await;
    server.until_log(&first, "[drain]").await;

    // What is asked for next ends the bake of the one before.
    let id = server.push("v2", "crash-after 1500").await;
    let good = server.ended(&first).await.0.commit.unwrap();
    until_last_state(&forge, 0, "success").await;
    let (bad, log) = server.ended(&id).await;
    assert_eq!(bad.state, "rolled_back", "{log:#?}");
    let bad = bad.commit.unwrap();
    let states = forge.until_state(&bad, "failure").await;
    assert!(!states.contains(&"success".to_owned()), "{states:?}");
    until_last_state(&forge, 1, "failure").await;
    let all = forge.github_deployments();
    assert!(!all[1].states().contains(&"success"), "{all:#?}");

    // What is back says so in a deployment of its own.
    until_last_state(&forge, 2, "success").await;
    until_last_state(&forge, 0, "inactive").await;
    let all = forge.github_deployments();
    assert_eq!(all[2].made["ref"], good);
    forge.until_state(&good, "success").await;
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_to_nothing_is_not_left_pending() {
    let forge = Forge::start().await;
    // No push stops another, so that one waits.
    let patient = SETTINGS.replace("bake = \"0s\"", "bake = \"0s\"\nsupersede = false");
    let mut server = Server::idle(&format!("{patient}\n{}", forge.settings("github"))).await;
    server.set_env("REPORT_TOKEN", TOKEN);
    server.serve().await;

    // Two commits were pushed, and only the first was heard of.
    let (old, one) = server.stage.commit("main", &files("v1", ""), "v1").unwrap();
    let (_, two) = server.stage.commit("main", &files("v2", ""), "v2").unwrap();
    let payload = forge::payload("refs/heads/main", &old, &one, "v1");
    let address = server.agent().address;
    let answer = forge::deliver(address, APP, &server.stage.secret, "push", &payload).await;
    let id = answer.unwrap().json()["deployment"]
        .as_str()
        .unwrap()
        .to_owned();
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.commit.as_deref(), Some(two.as_str()), "{log:#?}");
    forge.until_state(&two, "success").await;
    forge.until_state(&one, "error").await;

    // One runs, one waits and is overtaken, and the last is cancelled.
    let running = server.push("v3", "slow-start 60000").await;
    server.until_log(&running, "[probe] not healthy yet").await;
    let waited = server.push("v4", "").await;
    let newest = server.push("v5", "").await;
    let (waited, _) = server.ended(&waited).await;
    assert_eq!(waited.state, "superseded");
    forge.until_state(&waited.commit.unwrap(), "error").await;
    for id in [&newest, &running] {
        post(&server, &format!("/api/v1/deployments/{id}/cancel")).await;
        let (ended, _) = server.ended(id).await;
        assert_eq!(ended.state, "cancelled");
        forge.until_state(&ended.commit.unwrap(), "error").await;
    }
    for number in 0..forge.github_deployments().len() {
        let is = |forge: &Forge| {
            let last = last_state(forge, number);
            ["inactive", "success"].contains(&last.as_deref().unwrap_or_default())
        };
        forge.until("at rest", is).await;
    }
    // Asked for again, what had been cancelled goes live.
    let again = post(&server, &format!("/api/v1/apps/{APP}/deployments")).await;
    let (again, log) = server.ended(again["id"].as_str().unwrap()).await;
    assert_eq!(again.state, "live", "{log:#?}");
    forge.until_state(&again.commit.unwrap(), "success").await;
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_forge_is_told_in_its_own_words() {
    let forge = Forge::start().await;
    let mut server = reporting(&forge, "gitlab").await;
    let gitlab = forge.settings("gitlab");
    for (kind, states, failed) in [
        ("gitlab", ["pending", "running", "success"], "failed"),
        ("forgejo", ["pending", "pending", "success"], "failure"),
        (
            "bitbucket",
            ["INPROGRESS", "INPROGRESS", "SUCCESSFUL"],
            "FAILED",
        ),
        (
            "bitbucket-data-center",
            ["INPROGRESS", "INPROGRESS", "SUCCESSFUL"],
            "FAILED",
        ),
    ] {
        if kind != "gitlab" {
            server.stop().await;
            let text = std::fs::read_to_string(&server.stage.config).unwrap();
            let own = text.replace(&gitlab, &forge.settings(kind));
            std::fs::write(&server.stage.config, &own).unwrap();
            server.serve().await;
            std::fs::write(&server.stage.config, &text).unwrap();
        } else {
            // Each state arrives, but GitLab's answer does not: it refuses the repetition.
            forge.set_mood(Mood::Losing);
        }
        let live = server.go_live(kind).await;
        forge.set_mood(Mood::Well);
        let told = forge.until_state(&live.commit.unwrap(), states[2]).await;
        assert!(
            told.iter().all(|state| states.contains(&state.as_str())),
            "{told:?}"
        );
        report(&server, &live.id, "status", "told").await;
        let bad = server.push(kind, "exit-at-start").await;
        let (bad, _) = server.ended(&bad).await;
        forge.until_state(&bad.commit.unwrap(), failed).await;
        if kind == "gitlab" {
            let is = |forge: &Forge| {
                let (deployments, _) = forge.gitlab_deployments();
                let states: Vec<_> = deployments.iter().map(|it| it["status"].as_str()).collect();
                states == [Some("success"), Some("failed")]
            };
            forge.until("GitLab's deployments", is).await;
        }
    }
    let (deployments, environments) = forge.gitlab_deployments();
    assert_eq!(deployments[0]["ref"], "main");
    assert_eq!(environments.len(), 1, "{environments:#?}");
    assert_eq!(environments[0]["external_url"], "http://hello.test/");
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_live_and_was_replaced_in_an_outage_does_not_run_for_ever() {
    let mut forge = Forge::start().await;
    let mut server = reporting(&forge, "gitlab").await;
    let states = |forge: &Forge| {
        let (deployments, _) = forge.gitlab_deployments();
        let state = |it: &serde_json::Value| it["status"].as_str().unwrap().to_owned();
        deployments.iter().map(state).collect::<Vec<_>>()
    };
    let first = server.push("v1", "slow-start 3000").await;
    let runs = |forge: &Forge| states(forge) == ["running"];
    forge.until("running", runs).await;
    forge.down().await;
    let (first, log) = server.ended(&first).await;
    assert_eq!(first.state, "live", "{log:#?}");
    server.go_live("v2").await;
    server.stop().await;
    forge.up().await;
    server.serve().await;
    let told = |forge: &Forge| states(forge) == ["success", "success"];
    forge.until("both were live", told).await;
    forge.assert_all_right();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_github_app_finds_its_installation_and_keeps_its_token() {
    let forge = Forge::start().await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("app.pem");
    std::fs::write(&key, jwt::KEY).unwrap();
    let settings = format!("{SETTINGS}\n{}", forge.settings_of_app(&key));
    let mut server = Server::with(&settings).await;
    let first = server.go_live("v1").await;
    forge.until_state(&first.commit.unwrap(), "success").await;
    until_last_state(&forge, 0, "success").await;
    assert_eq!(forge.given().len(), 1, "one token for all of it");

    // Taken back before its time, it is replaced.
    forge.revoke();
    let second = server.go_live("v2").await;
    forge.until_state(&second.commit.unwrap(), "success").await;
    until_last_state(&forge, 1, "success").await;
    assert_eq!(forge.given().len(), 2);

    // While its key is away the deployment says why nothing is told.
    std::fs::rename(&key, key.with_extension("away")).unwrap();
    forge.revoke();
    let third = server.go_live("v3").await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !report(&server, &third.id, "status", "waiting").await["error"]
        .as_str()
        .is_some_and(|error| error.contains("cannot be read"))
    {
        assert!(tokio::time::Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::rename(key.with_extension("away"), &key).unwrap();
    forge.until_state(&third.commit.unwrap(), "success").await;
    let log = server.log();
    assert!(forge.given().iter().all(|token| !log.contains(token)));
    forge.assert_all_right();
    server.stop().await;
}
