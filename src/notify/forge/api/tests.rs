//! The complete requests to each forge.

use super::*;
use crate::config::forge_address as address;
use crate::notify::forge::fact::tests::fact;
use crate::store::statuses::StatusPhase;
use crate::webhook;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The state that each phase becomes, in the order of [`StatusPhase::ALL`].
fn states(forge: webhook::Forge) -> Vec<String> {
    let address = address(forge);
    let state = |phase| {
        let request = address.forge.status(&address, &fact(phase));
        request.body.unwrap()["state"].as_str().unwrap().to_owned()
    };
    StatusPhase::ALL.into_iter().map(state).collect()
}

#[test]
fn every_phase_has_a_state_that_the_forge_knows() {
    let table = [
        (
            webhook::Forge::GitHub,
            "pending pending success failure success failure failure error success error",
        ),
        (
            webhook::Forge::GitLab,
            "pending running success failed success failed failed canceled success canceled",
        ),
        (
            webhook::Forge::Forgejo,
            "pending pending success failure success failure failure warning success warning",
        ),
        (
            webhook::Forge::Bitbucket,
            "INPROGRESS INPROGRESS SUCCESSFUL FAILED SUCCESSFUL FAILED FAILED STOPPED SUCCESSFUL STOPPED",
        ),
        (
            webhook::Forge::BitbucketDataCenter,
            "INPROGRESS INPROGRESS SUCCESSFUL FAILED SUCCESSFUL FAILED FAILED CANCELLED SUCCESSFUL CANCELLED",
        ),
    ];
    for (forge, expected) in table {
        assert_eq!(states(forge).join(" "), expected, "{forge}");
    }
}

#[test]
fn a_status_stands_at_the_commit() {
    let table = [
        (
            webhook::Forge::GitHub,
            format!("/repos/acme/hello/statuses/{COMMIT}"),
        ),
        (
            webhook::Forge::GitLab,
            format!("/projects/acme%2Fhello/statuses/{COMMIT}"),
        ),
        (
            webhook::Forge::Gitea,
            format!("/repos/acme/hello/statuses/{COMMIT}"),
        ),
        (
            webhook::Forge::Bitbucket,
            format!("/repositories/acme/hello/commit/{COMMIT}/statuses/build"),
        ),
        (
            webhook::Forge::BitbucketDataCenter,
            format!("/projects/acme/repos/hello/commits/{COMMIT}/builds"),
        ),
    ];
    for (forge, path) in table {
        let address = address(forge);
        let request = address.forge.status(&address, &fact(StatusPhase::Live));
        assert_eq!((request.method, request.path), (Method::POST, path));
    }
}

#[test]
fn the_log_is_linked_where_there_is_a_link() {
    let log = "https://deploy.example.com/api/v1/deployments/d0000000000001/log";
    for forge in webhook::Forge::ALL {
        let Some(told) = ForgeApi::of(forge) else {
            continue;
        };
        let key = match told {
            ForgeApi::Bitbucket | ForgeApi::DataCenter => "url",
            _ => "target_url",
        };
        let mut fact = fact(StatusPhase::Live);
        let without = told.status(&address(forge), &fact).body.unwrap();
        // Bitbucket insists on one.
        let expected = (key == "url").then_some("https://hello.example.com");
        assert_eq!(without[key].as_str(), expected, "{forge}");
        fact.log_url = Some(log.into());
        let with = told.status(&address(forge), &fact).body.unwrap();
        assert_eq!(with[key], log, "{forge}");
    }
}

#[test]
fn a_token_is_shown_as_the_forge_wants_it() {
    for (forge, name, value) in [
        (ForgeApi::GitHub, "authorization", "Bearer t"),
        (ForgeApi::GitLab, "private-token", "t"),
        (ForgeApi::Gitea, "authorization", "token t"),
        (ForgeApi::Bitbucket, "authorization", "Bearer t"),
        (ForgeApi::DataCenter, "authorization", "Bearer t"),
    ] {
        let header = (name, value.to_owned());
        assert!(forge.headers("t").contains(&header), "{forge}");
    }
}

#[test]
fn gitlabs_refusal_to_repeat_a_state_is_no_failure() {
    let said = br#"{"message":"Cannot transition status via :run from :running"}"#;
    let bad = http::StatusCode::BAD_REQUEST;
    assert!(ForgeApi::GitLab.is_so_already(bad, said));
    assert!(!ForgeApi::GitLab.is_so_already(bad, br#"{"message":"400 Bad request"}"#));
    assert!(!ForgeApi::GitLab.is_so_already(http::StatusCode::CREATED, said));
    assert!(!ForgeApi::GitHub.is_so_already(bad, said));
}

#[test]
fn github_is_asked_neither_to_merge_nor_to_wait() {
    let address = address(webhook::Forge::GitHub);
    let request = ForgeApi::GitHub
        .deployment(&address, &fact(StatusPhase::Queued))
        .unwrap();
    assert_eq!(request.path, "/repos/acme/hello/deployments");
    assert_eq!(
        request.body.unwrap(),
        json!({
            "ref": COMMIT,
            "task": "deploy:cutover",
            "auto_merge": false,
            "required_contexts": [],
            "environment": "hello",
            "description": "Cutover deployment d0000000000001",
            "payload": { "cutover": "d0000000000001" },
        })
    );
    let progress = ForgeApi::GitHub.progress(&address, &fact(StatusPhase::Live), "7");
    let progress = progress.unwrap();
    assert_eq!(progress.path, "/repos/acme/hello/deployments/7/statuses");
    assert_eq!(
        progress.body.unwrap(),
        json!({
            "state": "success",
            "description": "Live",
            "environment_url": "https://hello.example.com",
        })
    );
}

#[test]
fn a_deployment_that_was_made_is_found_again() {
    let fact = fact(StatusPhase::Running);
    let one = |id: u64, payload: Value| json!({ "id": id, "sha": COMMIT, "payload": payload });
    let other = one(1, json!({ "cutover": "d0000000000002" }));
    let foreign = one(2, json!(""));
    for ours in [
        json!({ "cutover": "d0000000000001" }),
        json!("{\"cutover\":\"d0000000000001\"}"),
    ] {
        let list = json!([other, foreign, one(3, ours)]);
        assert_eq!(ForgeApi::GitHub.found(&list, &fact).as_deref(), Some("3"));
    }
    let list = json!([other, foreign]);
    assert_eq!(ForgeApi::GitHub.found(&list, &fact), None);
    let list = json!([{ "id": 4, "sha": "f".repeat(40) }, { "id": 5, "sha": COMMIT }]);
    assert_eq!(ForgeApi::GitLab.found(&list, &fact).as_deref(), Some("5"));
    assert_eq!(ForgeApi::GitLab.found(&json!({}), &fact), None);
}

#[test]
fn what_never_came_to_anything_makes_no_deployment() {
    for (forge, phases) in [
        (
            webhook::Forge::GitHub,
            vec![
                StatusPhase::Superseded,
                StatusPhase::Unchanged,
                StatusPhase::Cancelled,
                StatusPhase::Replaced,
            ],
        ),
        (
            webhook::Forge::GitLab,
            vec![
                StatusPhase::Queued,
                StatusPhase::Superseded,
                StatusPhase::Unchanged,
                StatusPhase::Cancelled,
                StatusPhase::Replaced,
            ],
        ),
    ] {
        let address = address(forge);
        for phase in StatusPhase::ALL {
            let made = address.forge.deployment(&address, &fact(phase)).is_some();
            assert_eq!(made, !phases.contains(&phase), "{forge} {phase}");
        }
    }
}

#[test]
fn gitlabs_environment_gets_the_apps_address_once() {
    let address = address(webhook::Forge::GitLab);
    let fact = fact(StatusPhase::Running);
    let look = ForgeApi::GitLab.environment(&address, &fact).unwrap();
    assert_eq!(look.path, "/projects/acme%2Fhello/environments?name=hello");
    let correct = |answer| ForgeApi::GitLab.correction(&address, &fact, &answer);
    let url = "https://hello.example.com";
    let make = correct(json!([])).unwrap();
    assert_eq!(make.method, Method::POST);
    let body = json!({ "name": "hello", "external_url": url });
    assert_eq!(make.body, Some(body));
    let change = correct(json!([{ "id": 7, "external_url": null }])).unwrap();
    assert_eq!(change.method, Method::PUT);
    assert_eq!(change.path, "/projects/acme%2Fhello/environments/7");
    assert_eq!(correct(json!([{ "id": 7, "external_url": url }])), None);
    let nowhere = Fact {
        environment_url: None,
        ..fact.clone()
    };
    assert_eq!(ForgeApi::GitLab.environment(&address, &nowhere), None);
}
