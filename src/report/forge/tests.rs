//! What each forge is asked, in full.

use super::*;
use crate::report::Phase;
use crate::report::address::tests::address;
use crate::report::fact::tests::fact;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// The state that each phase becomes, in the order of [`Phase::ALL`].
fn states(forge: webhook::Forge) -> Vec<String> {
    let address = address(forge);
    let state = |phase| {
        let request = address.forge.status(&address, &fact(phase));
        request.body.unwrap()["state"].as_str().unwrap().to_owned()
    };
    Phase::ALL.into_iter().map(state).collect()
}

#[test]
fn every_phase_has_a_state_that_the_forge_knows() {
    let table = [
        (
            webhook::Forge::GitHub,
            "pending pending success success failure failure error error",
        ),
        (
            webhook::Forge::GitLab,
            "pending running success success failed failed canceled canceled",
        ),
        (
            webhook::Forge::Forgejo,
            "pending pending success success failure failure warning warning",
        ),
        (
            webhook::Forge::Bitbucket,
            "INPROGRESS INPROGRESS SUCCESSFUL SUCCESSFUL FAILED FAILED STOPPED STOPPED",
        ),
        (
            webhook::Forge::BitbucketDataCenter,
            "INPROGRESS INPROGRESS SUCCESSFUL SUCCESSFUL FAILED FAILED CANCELLED CANCELLED",
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
        let request = address.forge.status(&address, &fact(Phase::Live));
        assert_eq!((request.method, request.path), (Method::POST, path));
    }
}

#[test]
fn the_log_is_linked_where_there_is_a_link() {
    let log = "https://deploy.example.com/api/v1/deployments/d0000000000001/log";
    for forge in webhook::Forge::ALL {
        let Some(told) = Forge::of(forge) else {
            continue;
        };
        let key = match told {
            Forge::Bitbucket | Forge::DataCenter => "url",
            _ => "target_url",
        };
        let mut fact = fact(Phase::Live);
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
        (Forge::GitHub, "authorization", "Bearer t"),
        (Forge::GitLab, "private-token", "t"),
        (Forge::Gitea, "authorization", "token t"),
        (Forge::Bitbucket, "authorization", "Bearer t"),
        (Forge::DataCenter, "authorization", "Bearer t"),
    ] {
        let header = (name, value.to_owned());
        assert!(forge.headers("t").contains(&header), "{forge}");
    }
}

#[test]
fn gitlabs_refusal_to_repeat_a_state_is_no_failure() {
    let said = br#"{"message":"Cannot transition status via :run from :running"}"#;
    let bad = http::StatusCode::BAD_REQUEST;
    assert!(Forge::GitLab.is_so_already(bad, said));
    assert!(!Forge::GitLab.is_so_already(bad, br#"{"message":"400 Bad request"}"#));
    assert!(!Forge::GitLab.is_so_already(http::StatusCode::CREATED, said));
    assert!(!Forge::GitHub.is_so_already(bad, said));
}
