//! `build.pull`: base images of a registry that are renewed under their name, and those that nobody may fetch.

use std::fs;

use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, RemoveImageOptionsBuilder};
use cutover::cli::setup::DEFAULT_HOST;
use futures_util::StreamExt;
use tokio::net::TcpListener;

use crate::faults::Dockerd;
use crate::images::{PASSWORD, Registry, USER};
use crate::processes::rewrite;
use crate::server::{APP, File, SETTINGS, Server};
use crate::support::demo::cleanup::remove_all_of;
use crate::support::docker::docker;

/// The sample app is the base image.
fn files(head: &str, base: &str) -> Vec<File> {
    let file = |path: &str, text: String| File {
        path: path.to_owned(),
        mode: 0o100644,
        bytes: text.into(),
    };
    // The later stage is not needed.
    let dockerfile =
        format!("{head}FROM {base} AS run\nCOPY mark /mark\nFROM nowhere.invalid/x:1\n");
    vec![
        file("Dockerfile", dockerfile),
        file("mark", head.to_owned()),
    ]
}

fn deploy(server: &Server, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["deploy", APP, "--follow"], arguments].concat();
    let done = server.cutover(&arguments).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn set(server: &Server, from: &str, to: &str) {
    let text = fs::read_to_string(&server.stage.config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&server.stage.config, text.replace(from, to)).unwrap();
    let done = server.cutover(&["reload"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_base_is_built_on_and_one_that_must_not_be_pulled_has_to_be_there() {
    let Some(registry) = Registry::start().await else {
        return;
    };
    let base = format!("{}:1", registry.name);
    registry.push("v1", "1").await;
    let build = "[apps.hello.build]\ntarget = \"run\"\npull = \"always\"\n";
    let mut server = Server::idle(&format!("{SETTINGS}{build}")).await;
    server.set_env("DOCKER_CONFIG", &registry.login().display().to_string());
    server.serve().await;
    let id = server.push_files(&files("", &base), "first").await;
    let (first, log) = server.ended(&id).await;
    assert_eq!(first.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v1");

    // The same there, then another.
    let (good, said) = deploy(&server, &[]);
    assert!(good && said.contains("reusing"), "{said}");
    registry.push("v2", "1").await;
    let (good, said) = deploy(&server, &[]);
    assert!(good && !said.contains("reusing"), "{said}");
    assert_eq!(server.version().await, "v2");

    // What Docker has not got under its name.
    set(&server, "pull = \"always\"", "pull = \"never\"");
    let (good, said) = deploy(&server, &[]);
    assert!(!good && said.contains(&format!("`{base}`")), "{said}");
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    let code = &list["items"][0]["error"]["code"];
    assert_eq!(code, "image_not_here", "{said}");
    assert_eq!(server.version().await, "v2");
    registry.push("v3", "1").await;
    let docker = docker().await;
    let login = DockerCredentials {
        username: Some(USER.to_owned()),
        password: Some(PASSWORD.to_owned()),
        ..Default::default()
    };
    let options = CreateImageOptionsBuilder::new()
        .from_image(&registry.name)
        .tag("1")
        .build();
    let pulled = docker.create_image(Some(options), None, Some(login));
    let pulled: Vec<_> = pulled.collect().await;
    assert!(pulled.iter().all(Result::is_ok), "{pulled:?}");
    let v3 = docker.inspect_image(&base).await.unwrap().id.unwrap();
    let (good, said) = deploy(&server, &[]);
    assert!(good, "{said}");
    assert_eq!(server.version().await, "v3");

    // Nor is what reads the Dockerfile fetched; and one deployment may ask all the same.
    let syntax = "# syntax=docker/dockerfile:0-not-here\n";
    let id = server.push_files(&files(syntax, &base), "syntax").await;
    let error = server.ended(&id).await.0.error.unwrap();
    assert_eq!(error.code, "image_not_here", "{error:?}");
    assert!(error.message.contains("0-not-here"), "{error:?}");
    let id = server.push_files(&files("", &base), "without").await;
    assert_eq!(server.ended(&id).await.0.state, "live");
    registry.push("v4", "1").await;
    let (good, said) = deploy(&server, &["--pull"]);
    assert!(good, "{said}");
    assert_eq!(server.version().await, "v4");
    server.stop().await;
    drop(server);
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    let _ = docker.remove_image(&v3, Some(options), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_registry_of_caches_costs_time_and_no_build() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let cache = format!("[apps.hello.build]\ncache_from = [\"{address}/hello:cache\"]\n");
    let mut server = Server::idle(&format!("{SETTINGS}{cache}")).await;
    // Other builds would wait for it too.
    let mut dockerd = Dockerd::make(&server.stage.folder);
    rewrite(&server, DEFAULT_HOST, &dockerd.host());
    let docker = dockerd.start().await;
    server.serve().await;
    let id = server.push("v1", "").await;
    let (live, log) = server.ended(&id).await;
    assert_eq!(live.state, "live", "{log:#?}");
    let warned = |line: &String| line.contains("of `build.cache_from`");
    assert!(log.iter().any(warned), "{log:#?}");
    server.stop().await;
    remove_all_of(&docker, &server.stage.data_dir)
        .await
        .unwrap();
}
