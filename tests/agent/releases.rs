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
        log.iter()
            .any(|line| line.contains("reusing the existing image")),
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
