//! A registry with a login and a certificate that it signed itself, in front of an engine of the test's own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use serde_json::Value;

use crate::faults::Dockerd;
use crate::images::Registry;
use crate::processes::rewrite;
use crate::server::{APP, SETTINGS, Server, files};
use cutover::cli::setup::DEFAULT_HOST;

/// Where Docker looks for whom it trusts as this registry.
struct Trust(PathBuf);

impl Trust {
    fn of(registry: SocketAddr) -> Self {
        let folder = PathBuf::from(format!("/etc/docker/certs.d/{registry}"));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        // Nothing else is in them where no others are trusted.
        let _ = fs::remove_dir("/etc/docker/certs.d");
    }
}

fn free_port(host: Ipv4Addr) -> SocketAddr {
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}

async fn deploy(server: &Server, arguments: &[&str]) -> (bool, String) {
    let mut command = server.cutover(&[&["deploy"], arguments, &["--follow"]].concat());
    let done = tokio::task::spawn_blocking(move || command.output());
    let done = done.await.unwrap().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (done.status.success(), said)
}

async fn newest(server: &Server, app: &str, what: &str) -> Value {
    let list = server.api(&format!("/api/v1/apps/{app}/{what}")).await;
    list["items"][0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_signed_registry_is_pulled_from_and_pushed_to_once_docker_trusts_it() {
    let mut server = Server::idle(SETTINGS).await;
    let mut dockerd = Dockerd::make(&server.stage.folder);
    let address = free_port(dockerd.address);
    let made = rcgen::generate_simple_self_signed(vec![address.ip().to_string()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let folder = server.stage.folder.clone();
    fs::write(folder.join("registry.crt"), &certificate).unwrap();
    fs::write(folder.join("registry.key"), key).unwrap();
    let tls = format!(
        ", tls: {{ certificate: {:?}, key: {:?} }}",
        folder.join("registry.crt"),
        folder.join("registry.key")
    );
    let Some(registry) = Registry::at(address, &tls).await else {
        return;
    };
    let text = fs::read_to_string(&server.stage.config).unwrap();
    let repo = text
        .lines()
        .find(|line| line.starts_with("repo = "))
        .unwrap();
    rewrite(&server, repo, &format!("image = \"{}:1\"", registry.name));
    rewrite(&server, DEFAULT_HOST, &dockerd.host());
    let mut text = fs::read_to_string(&server.stage.config).unwrap();
    text.push_str(&format!(
        "\n[apps.built]\n{repo}\ndomains = [\"built.test\"]\nport = 8080\n\
         [apps.built.build]\npush = \"{address}/built\"\n[apps.built.deploy]\nbake = \"0s\"\n"
    ));
    fs::write(&server.stage.config, text).unwrap();
    server.stage.commit("main", &files("v1", ""), "v1").unwrap();
    server.set_env("DOCKER_CONFIG", &registry.login().display().to_string());

    let trust = Trust::of(address);
    let docker = dockerd.start().await;
    server.serve().await;
    for (app, code) in [(APP, "image"), ("built", "push_failed")] {
        let (good, said) = deploy(&server, &[app]).await;
        assert!(!good && said.contains("/etc/docker/certs.d/"), "{said}");
        let failed = newest(&server, app, "deployments").await;
        assert_eq!(failed["error"]["code"], code, "{said}");
    }

    fs::write(trust.0.join("ca.crt"), &certificate).unwrap();
    registry.push_by(&docker, "v1", "1").await;
    let (good, said) = deploy(&server, &[APP]).await;
    assert!(good, "{said}\n{}", server.log());
    assert_eq!(server.version().await, "v1");
    let pinned = newest(&server, APP, "releases").await["image_digest"].clone();
    let digest = pinned
        .as_str()
        .unwrap()
        .rsplit_once('@')
        .unwrap()
        .1
        .to_owned();
    assert!(
        pinned.as_str().unwrap().starts_with(&registry.name),
        "{pinned}"
    );
    let (good, said) = deploy(&server, &["built"]).await;
    assert!(good, "{said}\n{}", server.log());
    let pushed = newest(&server, "built", "releases").await["image_digest"].clone();
    let name = format!("{address}/built:");
    assert!(pushed.as_str().unwrap().starts_with(&name), "{pushed}");

    // What the registry does not give out, or has no longer.
    registry.push_by(&docker, "v2", "2").await;
    let gone = format!("@sha256:{}", "0".repeat(64));
    let (good, said) = deploy(&server, &[APP, "--image", &gone]).await;
    assert!(
        !good && said.contains("if its digest was deleted"),
        "{said}"
    );
    fs::remove_file(registry.login().join("config.json")).unwrap();
    let (good, said) = deploy(&server, &[APP, "--image", "2"]).await;
    assert!(!good && said.contains("docker login"), "{said}");
    assert_eq!(server.version().await, "v1");
    let live = newest(&server, APP, "releases").await;
    assert!(
        live["image_digest"].as_str().unwrap().ends_with(&digest),
        "{live}"
    );
    server.stop().await;
    drop(dockerd);
}
