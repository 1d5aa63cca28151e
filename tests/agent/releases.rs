//! What is kept, what is gone back to, and what is removed.

use std::collections::HashMap;

use crate::server::{APP, Server};
use crate::support::demo::http::Answer;
use crate::support::docker::docker;
use crate::support::wait::soon;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptionsBuilder,
};
use http::Request;
use serde_json::json;

async fn rollback(server: &Server, to: &str) -> Answer {
    let request = Request::post(format!("/api/v1/apps/{APP}/rollback"))
        .header("authorization", format!("Bearer {}", server.token()));
    server.ask(request, json!({ "to": to }).to_string()).await
}

/// The names of the images that this agent keeps.
async fn images(server: &Server) -> Vec<String> {
    let label = format!("cutover.image.data-dir={}", server.stage.data_dir.display());
    let filters = HashMap::from([("label", vec![label])]);
    let options = ListImagesOptionsBuilder::new().filters(&filters).build();
    let found = docker().await.list_images(Some(options)).await;
    let mut names: Vec<_> = found
        .unwrap()
        .into_iter()
        .flat_map(|it| it.repo_tags)
        .collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_images_are_kept_and_each_can_be_gone_back_to() {
    // SETTINGS keep three.
    let mut server = Server::start().await;
    let mut made = Vec::new();
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        made.push(server.go_live(version).await);
    }
    // Two names each; the last to go waits for its container, which stops in the background.
    assert!(soon(async || images(&server).await.len() == 6).await);
    let kept = images(&server).await;
    for (deployment, is_kept) in made.iter().zip([false, false, true, true, true]) {
        let name = deployment.image.clone().unwrap();
        assert_eq!(kept.contains(&name), is_kept, "{name} in {kept:?}");
    }

    // By the image's tag, with and without its repository; by the deployment.
    let image = made[2].image.clone().unwrap();
    let tag = image.split_once(':').unwrap().1;
    for (to, version) in [
        (tag, "v3"),
        (made[3].id.as_str(), "v4"),
        (image.as_str(), "v3"),
    ] {
        let answer = rollback(&server, to).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let queued = answer.json();
        assert_eq!(queued["trigger"], "rollback");
        let (back, log) = server.ended(queued["id"].as_str().unwrap()).await;
        assert_eq!(back.state, "live", "{log:#?}");
        assert!(back.current);
        assert_eq!(server.version().await, version);
        let steps: Vec<_> = back.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(
            steps[..2],
            ["start", "probe"],
            "nothing is fetched or built"
        );
    }

    let gone = rollback(&server, made[0].image.as_deref().unwrap()).await;
    assert_eq!(gone.status, 409, "{}", gone.text());
    let live = rollback(&server, tag).await;
    assert_eq!(live.status, 409, "{}", live.text());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_built_again_with_other_settings_does_not_lose_its_first_image() {
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;

    // The same tree again: nothing is built.
    let request = Request::post(format!("/api/v1/apps/{APP}/deployments"))
        .header("authorization", format!("Bearer {}", server.token()));
    let again = server.ask(request, "").await.json();
    let (again, log) = server.ended(again["id"].as_str().unwrap()).await;
    assert_eq!(again.state, "live", "{log:#?}");
    assert!(
        log.iter().any(|line| line.contains("reusing the one that")),
        "{log:#?}"
    );

    server.stop().await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = format!("{text}\n[apps.{APP}.build]\nargs = {{ COLOUR = \"green\" }}\n");
    std::fs::write(&server.stage.config, text).unwrap();
    server.serve().await;
    let request = Request::post(format!("/api/v1/apps/{APP}/deployments"))
        .header("authorization", format!("Bearer {}", server.token()));
    let other = server.ask(request, "").await.json();
    let (other, log) = server.ended(other["id"].as_str().unwrap()).await;
    assert_eq!(other.state, "live", "{log:#?}");
    assert_eq!(other.commit, first.commit);

    let answer = rollback(&server, &first.id).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let (back, log) = server.ended(answer.json()["id"].as_str().unwrap()).await;
    assert_eq!(back.state, "live", "{log:#?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_somebody_uses_is_kept_and_so_is_their_container() {
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    let image = first.image.clone().unwrap();
    // By hand, from our image: it has the image's labels, and is not ours for that.
    let docker = docker().await;
    let name = format!("by-hand-{}", first.id);
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let body = bollard::models::ContainerCreateBody {
        image: Some(image.clone()),
        ..Default::default()
    };
    docker.create_container(Some(options), body).await.unwrap();

    let listed = async |server: &Server| {
        let list = server.api(&format!("/api/v1/apps/{APP}/releases")).await;
        let items = list["items"].as_array().unwrap().clone();
        let found = items.iter().find(|item| item["image"] == image.as_str());
        found.unwrap()["kept"].as_bool().unwrap()
    };
    for version in ["v2", "v3", "v4"] {
        server.go_live(version).await;
    }
    // The last of its names stays, and the layers with it.
    let own = format!("cutover/{APP}:{}", first.id);
    let kept = images(&server).await;
    assert!(kept.contains(&own), "{kept:?}");
    assert!(
        listed(&server).await,
        "as Docker has it, so says the record"
    );
    // The sweep at the start finds it by its label.
    server.stop().await;
    server.serve().await;
    server.go_live("v5").await;
    assert!(docker.inspect_container(&name, None).await.is_ok());

    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&name, Some(force)).await.unwrap();
    server.go_live("v6").await;
    let gone = async || !images(&server).await.contains(&own);
    assert!(soon(gone).await, "tried again: {:?}", images(&server).await);
    assert!(soon(async || !listed(&server).await).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_removed_though_somebody_uses_its_image() {
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    let docker = docker().await;
    let name = format!("by-hand-{}", first.id);
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let body = bollard::models::ContainerCreateBody {
        image: first.image.clone(),
        ..Default::default()
    };
    docker.create_container(Some(options), body).await.unwrap();

    let removed = server.cutover(&["remove", APP, "--yes"]).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    assert!(docker.inspect_container(&name, None).await.is_ok());
    server.go_live("v2").await;

    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&name, Some(force)).await.unwrap();
    server.go_live("v3").await;
    let own = format!("cutover/{APP}:{}", first.id);
    let gone = async || !images(&server).await.contains(&own);
    assert!(soon(gone).await, "{:?}", images(&server).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gc_removes_the_images_that_a_removal_had_to_leave() {
    let mut server = Server::start().await;
    let first = server.go_live("v1").await;
    let failed = server.push("v2", "exit-at-start").await;
    server.ended(&failed).await;
    let docker = docker().await;
    let name = format!("by-hand-{}", first.id);
    let options = CreateContainerOptionsBuilder::new().name(&name).build();
    let body = bollard::models::ContainerCreateBody {
        image: first.image.clone(),
        ..Default::default()
    };
    docker.create_container(Some(options), body).await.unwrap();

    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let (agent, _) = text.split_once("[apps.").unwrap();
    std::fs::write(&server.stage.config, agent).unwrap();
    assert!(server.cutover(&["reload"]).status().unwrap().success());
    let shown = server.cutover(&["remove", APP]).output().unwrap();
    let shown = String::from_utf8_lossy(&[shown.stdout, shown.stderr].concat()).into_owned();
    assert_eq!(
        shown.matches("remove image").count(),
        2,
        "the failed one too: {shown}"
    );
    let removed = server.cutover(&["remove", APP, "--yes"]).output().unwrap();
    assert!(removed.status.success(), "{removed:?}");
    let own = format!("cutover/{APP}:{}", first.id);
    let left = images(&server).await;
    assert!(
        left.contains(&own) && !left.iter().any(|it| it.contains(&failed)),
        "{left:?}"
    );

    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    docker.remove_container(&name, Some(force)).await.unwrap();
    let gc = server.cutover(&["gc", "--yes"]).output().unwrap();
    assert!(gc.status.success(), "{gc:?}");
    assert_eq!(images(&server).await, Vec::<String>::new());
    server.stop().await;
}

/// Runs `cutover rollback` to its end; gives its exit code and what it printed.
fn roll_back(server: &Server, more: &[&str]) -> (Option<i32>, String) {
    let arguments = [&["rollback", APP, "--follow"], more].concat();
    let output = server.cutover(&arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Deploys the tip of the branch again.
async fn redeploy(server: &Server) {
    let output = server.cutover(&["deploy", APP, "--follow"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_goes_further_back_each_time_and_only_to_what_was_good() {
    let mut server = Server::start().await;
    let mut made = Vec::new();
    for version in ["v1", "v2"] {
        made.push(server.go_live(version).await);
    }
    // SETTINGS keep three images: one commit counts as one, however often it is deployed.
    for _ in 0..4 {
        redeploy(&server).await;
    }
    let never = server.push("v3", "exit-at-start").await;
    assert_eq!(server.ended(&never).await.0.state, "failed");
    let first = made[0].image.clone().unwrap();
    let kept = images(&server).await;
    assert!(kept.contains(&first), "{first} in {kept:?}");
    let listed = server.cutover(&["releases", APP]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let newest = listed.lines().nth(1).unwrap();
    assert!(newest.contains("never live"), "{listed}");

    // What runs now was only deployed again: what is different is the first.
    let (code, said) = roll_back(&server, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(server.version().await, "v1");
    let told = said.lines().next().unwrap();
    for part in [
        "rolling back from `r",
        made[1].commit.as_deref().unwrap().get(..12).unwrap(),
        "\"v2\"",
        made[0].commit.as_deref().unwrap().get(..12).unwrap(),
        "\"v1\"",
        " ago)",
    ] {
        assert!(told.contains(part), "{part}: {said}");
    }
    let (code, said) = roll_back(&server, &[]);
    assert_eq!(code, Some(2), "it does not go forth again: {said}");
    assert_eq!(server.version().await, "v1");

    // What is deployed now replaces the first, and that is what it goes back to.
    made.push(server.go_live("v4").await);
    made.push(server.go_live("v5").await);
    let commit = |at: usize| made[at].commit.as_deref().unwrap();
    for (to, version) in [
        ("-2", "v1"),
        (&commit(2)[..7], "v4"),
        (&commit(3).to_uppercase()[..9], "v5"),
        (&made[2].id[..12], "v4"),
        ("-1", "v1"),
    ] {
        let (code, said) = roll_back(&server, &["--to", to]);
        assert_eq!(code, Some(0), "{to}: {said}");
        assert_eq!(server.version().await, version, "{to}");
    }
    for to in ["nope", "-0", "-7", "-x", &never, &commit(0)[..6], ""] {
        let (code, said) = roll_back(&server, &["--to", to]);
        assert_eq!(code, Some(2), "{to}: {said}");
    }
    assert_eq!(server.version().await, "v1");

    // Without following it, the same is said.
    let output = server.cutover(&["rollback", APP, "--to", "v5"]).output();
    assert_eq!(output.unwrap().status.code(), Some(2));
    let output = server
        .cutover(&["rollback", APP, "--to", &made[3].id])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = said.lines();
    let (from, to) = (lines.next().unwrap(), lines.next().unwrap());
    assert!(
        from.starts_with("From `r") && from.contains("\"v1\""),
        "{said}"
    );
    assert!(to.starts_with("To   `r") && to.contains("\"v5\""), "{said}");
    server.stop().await;
}
