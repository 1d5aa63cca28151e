//! Apps whose image comes from a registry, which is Debian's docker-registry with a login.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::Docker;
use bollard::auth::DockerCredentials;
use bollard::query_parameters::{CreateImageOptionsBuilder, PushImageOptions, RemoveImageOptions};
use futures_util::StreamExt;
use http::Request;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use crate::server::{APP, SETTINGS, Server, files};
use crate::support::docker::docker;
use crate::support::tool;
use crate::support::wait::soon;

pub const USER: &str = "ann";
pub const PASSWORD: &str = "pw";
const HASHED: &str = "ann:$2y$05$abcdefghijklmnopqrstuuHIrMEWpUCQe2YqFR3sXwQ75u4od..9q\n";

pub struct Registry {
    /// `host:port/hello`
    pub name: String,
    _child: Child,
    folder: tempfile::TempDir,
}

impl Registry {
    pub async fn start() -> Option<Self> {
        let port = tool::free_address().port();
        // The engine trusts all of 127.0.0.0/8 without TLS.
        Self::at(([127, 0, 0, 1], port).into(), "").await
    }

    /// The same there; `tls` is more of its `http` section.
    pub async fn at(address: std::net::SocketAddr, tls: &str) -> Option<Self> {
        let program = tool::find("docker-registry", "docker-registry")?;
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("htpasswd"), HASHED).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\n\
             storage: {{ filesystem: {{ rootdirectory: {:?} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: \"{address}\"{tls} }}\n\
             auth: {{ htpasswd: {{ realm: test, path: {:?} }} }}\n",
            path("store"),
            path("htpasswd"),
        );
        std::fs::write(path("config.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(path("config.yml"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = tool::serving(&mut command, address).await;
        let registry = Self {
            name: format!("{address}/hello"),
            _child: child,
            folder,
        };
        let auth = STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let login = json!({"auths": {address.to_string(): {"auth": auth}}});
        std::fs::create_dir(registry.login()).unwrap();
        let path = registry.login().join("config.json");
        std::fs::write(path, login.to_string()).unwrap();
        Some(registry)
    }

    /// Docker's configuration with the login.
    pub fn login(&self) -> std::path::PathBuf {
        self.folder.path().join("login")
    }

    /// The sample app in this version, under this tag.
    pub async fn push(&self, version: &str, tag: &str) {
        self.push_by(&docker().await, version, tag).await;
    }

    pub async fn push_by(&self, docker: &Docker, version: &str, tag: &str) {
        let mut archive = tar::Builder::new(Vec::new());
        for file in files(version, "") {
            let mut header = tar::Header::new_gnu();
            header.set_size(file.bytes.len() as u64);
            header.set_mode(file.mode & 0o777);
            (archive.append_data(&mut header, &file.path, file.bytes.as_slice())).unwrap();
        }
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&self.name)
            .tag(tag)
            .changes(vec!["ENTRYPOINT [\"/hello\"]".to_owned()])
            .build();
        let body = bollard::body_full(archive.into_inner().unwrap().into());
        let mut made = Box::pin(docker.create_image(Some(options), Some(body), None));
        while let Some(message) = made.next().await {
            message.unwrap();
        }
        let options = PushImageOptions {
            tag: Some(tag.to_owned()),
            ..Default::default()
        };
        let login = DockerCredentials {
            username: Some(USER.to_owned()),
            password: Some(PASSWORD.to_owned()),
            ..Default::default()
        };
        let mut pushed = Box::pin(docker.push_image(&self.name, Some(options), Some(login)));
        while let Some(message) = pushed.next().await {
            let message = message.unwrap();
            assert!(message.error_detail.is_none(), "{message:?}");
        }
        // What is deployed comes from the registry.
        let name = format!("{}:{tag}", self.name);
        (docker
            .remove_image(&name, None::<RemoveImageOptions>, None)
            .await)
            .unwrap();
    }
}

/// A server whose app has this image.
async fn server(registry: &Registry, more: &str) -> Server {
    let mut server = Server::idle(&format!("{more}\n{SETTINGS}")).await;
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let lines = text.lines().map(|line| match line.starts_with("repo = ") {
        true => format!("image = \"{}:1\"\n", registry.name),
        false => format!("{line}\n"),
    });
    std::fs::write(&server.stage.config, lines.collect::<String>()).unwrap();
    server.set_env("DOCKER_CONFIG", &registry.login().display().to_string());
    server.serve().await;
    server
}

fn deploy(server: &Server, arguments: &[&str]) -> (bool, String) {
    let arguments = [&["deploy", APP], arguments].concat();
    let done = server.cutover(&arguments).output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    (
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

async fn newest(server: &Server) -> Value {
    let list = server.api(&format!("/api/v1/apps/{APP}/deployments")).await;
    list["items"][0].clone()
}

fn secret(config: &Path) -> String {
    let path = config.parent().unwrap().join("hello.secret");
    std::fs::read_to_string(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_registry_is_deployed_by_digest_and_rolled_back() {
    let Some(registry) = Registry::start().await else {
        return;
    };
    let server = server(&registry, "").await;
    // What is not there.
    let (good, said) = deploy(&server, &["--follow"]);
    assert!(!good, "{said}");
    assert_eq!(newest(&server).await["error"]["code"], "image", "{said}");

    registry.push("v1", "1").await;
    let (good, said) = deploy(&server, &["--follow"]);
    assert!(good, "{said}\n{}", server.log());
    assert_eq!(server.version().await, "v1");
    let first = newest(&server).await;
    let pinned = first["message"].as_str().unwrap().to_owned();
    assert!(
        pinned.starts_with(&format!("{}:1@sha256:", registry.name)),
        "{first}"
    );

    // Another tag, and no other image.
    registry.push("v2", "2").await;
    let (good, said) = deploy(&server, &["--image", "2", "--follow"]);
    assert!(good, "{said}");
    assert_eq!(server.version().await, "v2");
    let (good, said) = deploy(&server, &["--image", "other.example/hello"]);
    assert!(!good && said.contains("a tag or digest of"), "{said}");
    let (good, said) = deploy(&server, &["--ref", "main"]);
    assert!(!good && said.contains("in place of `ref`"), "{said}");

    // Back, and forward to exactly the first.
    let back = server
        .cutover(&["rollback", APP, "--follow"])
        .output()
        .unwrap();
    assert!(back.status.success(), "{back:?}");
    assert_eq!(server.version().await, "v1");
    registry.push("v3", "1").await;
    let (good, said) = deploy(&server, &["--image", &pinned, "--follow"]);
    assert!(
        good && said.contains("nothing that goes into the image has changed"),
        "{said}"
    );
    assert_eq!(server.version().await, "v1");
    let list = server.api(&format!("/api/v1/apps/{APP}/releases")).await;
    assert_eq!(list["items"][0]["image_digest"], pinned, "{list}");
    // What it was built from was recorded when it was.
    let from = &list["items"][0]["provenance"];
    assert_eq!(
        (&from["source"], &from["built_by"]),
        (&json!(pinned), &first["id"])
    );
    let digest = pinned.rsplit_once('@').unwrap().1;
    assert_eq!(from["bases"][0]["digest"], digest, "{from}");
    let shown = server.cutover(&["show", first["id"].as_str().unwrap()]);
    let shown = { shown }.output().unwrap();
    assert!(
        String::from_utf8_lossy(&shown.stdout).contains(digest),
        "{shown:?}"
    );

    // The registry says that the tag has moved.
    let hook = async |token: &str, payload: Value| {
        let request = Request::post(format!("/hooks/{APP}?token={token}"));
        let request = request.header("content-type", "application/json");
        server.ask(request, payload.to_string()).await
    };
    let token = secret(&server.stage.config);
    let answer = hook("wrong", json!({"push_data": {"tag": "1"}})).await;
    assert_eq!(answer.status, 401, "{}", answer.text());
    let answer = hook(&token, json!({"push_data": {"tag": "9"}})).await;
    assert_eq!(
        answer.json()["deployment"],
        Value::Null,
        "{}",
        answer.text()
    );
    let other = json!({"push_data": {"tag": "1"}, "repository": {"repo_name": "another/image"}});
    let answer = hook(&token, other).await;
    assert_eq!(
        answer.json()["deployment"],
        Value::Null,
        "{}",
        answer.text()
    );
    let answer = hook(&token, json!({"push_data": {"tag": "1"}})).await;
    let id = answer.json()["deployment"].as_str().unwrap().to_owned();
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert_eq!(server.version().await, "v3");
    // And once more, though there is nothing new.
    let answer = hook(&token, json!({"push_data": {"tag": "1"}})).await;
    let id = answer.json()["deployment"].as_str().unwrap().to_owned();
    assert_eq!(server.ended(&id).await.0.state, "skipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_asked_for_another_image_and_a_rollback_stays() {
    let Some(registry) = Registry::start().await else {
        return;
    };
    registry.push("v1", "1").await;
    let server = server(&registry, "poll = \"5s\"").await;
    let serves = async |version: &str| {
        let is_live = soon(async || {
            let newest = newest(&server).await;
            newest["state"] == "live" && server.version().await == version
        });
        assert!(is_live.await, "{}\n{}", newest(&server).await, server.log());
    };
    serves("v1").await;
    registry.push("v2", "1").await;
    serves("v2").await;
    let back = server
        .cutover(&["rollback", APP, "--follow"])
        .output()
        .unwrap();
    assert!(back.status.success(), "{back:?}");
    let rolled_back = newest(&server).await["id"].clone();
    tokio::time::sleep(std::time::Duration::from_secs(11)).await;
    assert_eq!(newest(&server).await["id"], rolled_back);
    assert_eq!(server.version().await, "v1");
    registry.push("v3", "1").await;
    serves("v3").await;

    // What somebody has removed from Docker is pulled again by its digest.
    let list = server.api(&format!("/api/v1/apps/{APP}/releases")).await;
    let second = &list["items"][1];
    let (id, image) = (second["id"].as_str(), second["image_id"].as_str());
    let (id, image) = (id.unwrap(), image.unwrap());
    let force = RemoveImageOptions {
        force: true,
        ..Default::default()
    };
    let docker = docker().await;
    docker.remove_image(image, Some(force), None).await.unwrap();
    let back = |more: &[&str]| {
        let back = [&["rollback", APP, "--to", id, "--follow"], more].concat();
        server.cutover(&back).output().unwrap()
    };
    let gone = back(&[]);
    let said = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(
        !gone.status.success() && said.contains("--rebuild"),
        "{said}"
    );
    let again = back(&["--rebuild"]);
    assert!(again.status.success(), "{again:?}");
    assert_eq!(server.version().await, "v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_built_image_is_pushed_too() {
    let Some(registry) = Registry::start().await else {
        return;
    };
    let settings = format!(
        "{SETTINGS}[apps.hello.build]\npush = \"{}\"\n",
        registry.name
    );
    let mut server = Server::idle(&settings).await;
    server.set_env("DOCKER_CONFIG", &registry.login().display().to_string());
    server.serve().await;
    let deployment = server.go_live("v1").await;
    let tag = deployment.commit.unwrap()[..12].to_owned();
    let list = server.api(&format!("/api/v1/apps/{APP}/releases")).await;
    let pushed = list["items"][0]["image_digest"].as_str().unwrap();
    let name = format!("{}:{tag}", registry.name);
    assert!(pushed.starts_with(&format!("{name}@sha256:")), "{pushed}");
    assert!(
        docker().await.inspect_image(&name).await.is_err(),
        "the name is left here"
    );
    let there = async |name: &str| {
        let login = DockerCredentials {
            username: Some(USER.to_owned()),
            password: Some(PASSWORD.to_owned()),
            ..Default::default()
        };
        let docker = docker().await;
        let found = docker.inspect_registry_image(name, Some(login)).await;
        found.unwrap().descriptor.digest.unwrap()
    };
    let digest = there(&name).await;
    assert!(pushed.ends_with(&digest), "{pushed} {digest}");
    // With how it was built, where Docker can say it.
    let shown = server.cutover(&["show", &deployment.id]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    if let Some(digest) = list["items"][0]["provenance"]["attestation"].as_str() {
        let name = format!("{}@{digest}", registry.name);
        assert_eq!(there(&name).await, digest);
        assert!(
            shown.contains(&format!("Provenance   SLSA ({digest})")),
            "{shown}"
        );
    } else {
        assert!(!shown.contains("Provenance"), "{shown}");
    }

    // Without a login nothing goes live that is not there too.
    std::fs::remove_file(registry.login().join("config.json")).unwrap();
    let id = server.push("v2", "").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.error.unwrap().code, "push_failed", "{log:#?}");
    assert_eq!(server.version().await, "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_another_machine_has_run_are_cached_in_a_registry() {
    let Some(registry) = Registry::start().await else {
        return;
    };
    let cache = format!("{}:cache", registry.name);
    let settings = format!(
        "{SETTINGS}[apps.hello.build]\ncache_from = [\"{cache}\"]\ncache_to = \"{cache}\"\n"
    );
    let mut server = Server::idle(&settings).await;
    server.set_env("DOCKER_CONFIG", &registry.login().display().to_string());
    server.serve().await;
    // There is none yet.
    let id = server.push("v1", "").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    let said = |log: &[String], text: &str| log.iter().any(|line| line.contains(text));
    assert!(said(&log, "pushed the build cache"), "{log:#?}");
    let docker = docker().await;
    assert!(
        docker.inspect_image(&cache).await.is_err(),
        "the name is left here"
    );
    let id = server.push("v2", "").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert!(
        said(&log, &format!("importing cache manifest from {cache}")),
        "{log:#?}"
    );
    // The registry has what the steps are recognized by.
    let url = format!(
        "http://{}",
        cache.replace("/hello:", "/v2/hello/manifests/")
    );
    let get = async |url: &str| {
        let mut curl = Command::new("curl");
        let accept = "Accept: application/vnd.docker.distribution.manifest.v2+json, \
                      application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";
        curl.args([
            "-sf",
            "-u",
            &format!("{USER}:{PASSWORD}"),
            "-H",
            accept,
            url,
        ]);
        let said = curl.output().await.unwrap().stdout;
        serde_json::from_slice::<Value>(&said).unwrap_or_default()
    };
    if tool::find("curl", "curl").is_some() {
        let mut manifest = get(&url).await;
        // With how it was built, the image is the first of two.
        if let Some(image) = manifest["manifests"][0]["digest"].as_str() {
            manifest = get(&url.replace("manifests/cache", &format!("manifests/{image}"))).await;
        }
        let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
        let config = get(&url.replace("manifests/cache", &format!("blobs/{config}"))).await;
        assert!(config["moby.buildkit.cache.v0"].is_string(), "{config}");
    }

    // Without it a deployment goes on.
    std::fs::remove_file(registry.login().join("config.json")).unwrap();
    let id = server.push("v3", "").await;
    let (deployment, log) = server.ended(&id).await;
    assert_eq!(deployment.state, "live", "{log:#?}");
    assert!(said(&log, "the build cache is not pushed"), "{log:#?}");
}
