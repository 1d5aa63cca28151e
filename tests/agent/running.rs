//! What an app runs with: its environment, its storage and the engine's settings, read back from Docker.

use std::collections::HashMap;

use bollard::models::{ContainerInspectResponse, RestartPolicyNameEnum};
use bollard::query_parameters::RemoveContainerOptionsBuilder;
use rusqlite::Connection;

use crate::server::{APP, SETTINGS, Server, free_address};
use crate::support::docker::docker;
use crate::support::wait::soon;

/// The live release's only container.
async fn container(server: &Server) -> Option<ContainerInspectResponse> {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release";
    let name: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    docker().await.inspect_container(&name, None).await.ok()
}

fn environment(found: &ContainerInspectResponse) -> HashMap<String, String> {
    let env = found.config.as_ref().unwrap().env.clone().unwrap();
    let pair = |it: &String| {
        let (name, value) = it.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    env.iter().map(pair).collect()
}

/// The mounts as `source -> target`, sorted.
fn mounts(found: &ContainerInspectResponse) -> Vec<String> {
    let mounts = found.mounts.clone().unwrap().into_iter();
    let mut mounts: Vec<_> = mounts
        .map(|it| {
            let source = it.name.or(it.source).unwrap_or_default();
            let access = if it.rw == Some(true) {
                ""
            } else {
                ", read-only"
            };
            format!("{source} -> {}{access}", it.destination.unwrap())
        })
        .collect();
    mounts.sort();
    mounts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_reaches_the_container_and_the_data_outlives_it() {
    let volume = format!("data-{}", std::process::id());
    let network = format!("backend-{}", std::process::id());
    let settings = format!(
        "{SETTINGS}
env = {{ PLAIN = \"a b=c\", FROM_ENV = {{ env = \"HELLO_TEST_KEY\" }}, FROM_FILE = {{ file = \"key\" }} }}
env_file = \"hello.env\"
volumes = [\"{volume}:/data\", {{ host = \"HOST\", target = \"/host\", read_only = true }}]
tmpfs = [\"/tmp\", {{ target = \"/run/x\", size = \"1m\" }}]
user = \"1000:1001\"
read_only = true
stop_signal = \"SIGINT\"
capabilities = [\"NET_RAW\"]
ulimits = {{ nofile = {{ soft = 512, hard = 1024 }} }}
memory = \"96m\"
cpus = 0.5
shm_size = \"8m\"
extra_hosts = {{ db = \"192.0.2.7\" }}
dns = [\"192.0.2.53\"]
labels = {{ team = \"web\" }}
devices = [\"/dev/null:/dev/nothing\"]
networks = [\"{network}\"]
log = {{ driver = \"none\" }}
"
    );
    let mut server = Server::idle(&settings).await;
    let host = server.stage.folder.join("host");
    std::fs::create_dir(&host).unwrap();
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace("HOST", host.to_str().unwrap());
    let text = text.replace(
        "[docker]\n",
        &format!("[docker]\nallow_binds = [{host:?}]\n"),
    );
    std::fs::write(&server.stage.config, text).unwrap();
    let write = |name: &str, text: &str| std::fs::write(server.stage.folder.join(name), text);
    write("key", "of-file\n").unwrap();
    write("hello.env", "PLAIN=less\nOTHER=\"two\\nlines\"\n").unwrap();
    server.set_env("HELLO_TEST_KEY", "of-env");
    server.serve().await;

    // Of somebody else, and not there yet.
    let id = server.push("v0", "").await;
    let (failed, _) = server.ended(&id).await;
    let why = failed.error.unwrap().message;
    assert!(
        why.contains(&format!("docker network create {network}")),
        "{why}"
    );
    let request = bollard::models::NetworkCreateRequest {
        name: network.clone(),
        ..Default::default()
    };
    docker().await.create_network(request).await.unwrap();

    let first = server.go_live("v1").await;
    let found = container(&server).await.unwrap();
    let env = environment(&found);
    let name = found.name.clone().unwrap();
    let commit = first.commit.as_deref().unwrap();
    for (key, value) in [
        ("PLAIN", "a b=c"),
        ("FROM_ENV", "of-env"),
        ("FROM_FILE", "of-file"),
        ("OTHER", "two\nlines"),
        ("PORT", "8080"),
        ("CUTOVER_APP", APP),
        ("CUTOVER_COMMIT", commit),
        ("SOURCE_COMMIT", commit),
        ("CUTOVER_REF", "refs/heads/main"),
        ("CUTOVER_INSTANCE", name.trim_start_matches('/')),
    ] {
        assert_eq!(env.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert!(env["CUTOVER_RELEASE"].starts_with('r'));

    let named = format!("cutover-{APP}-{volume}");
    let expected = [
        format!("{} -> /host, read-only", host.display()),
        format!("{named} -> /data"),
    ];
    assert_eq!(mounts(&found), expected);
    let config = found.config.unwrap();
    assert_eq!(config.user.as_deref(), Some("1000:1001"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.labels.unwrap()["team"], "web");
    let networks = found.network_settings.unwrap().networks.unwrap();
    assert!(networks.contains_key(&network) && networks.len() == 2);
    let of = found.host_config.unwrap();
    let device = of.devices.unwrap().remove(0);
    assert_eq!(device.path_in_container.as_deref(), Some("/dev/nothing"));
    assert_eq!(of.log_config.unwrap().typ.as_deref(), Some("none"));
    let logs = server.cutover(&["logs", APP]).output().unwrap();
    let logs = String::from_utf8(logs.stdout).unwrap();
    assert!(logs.contains("`run.log`"), "{logs}");
    assert_eq!((of.readonly_rootfs, of.init), (Some(true), Some(true)));
    assert!(of.cap_add.unwrap().iter().any(|it| it.ends_with("NET_RAW")));
    assert_eq!(of.shm_size, Some(8 << 20));
    // No swap on top of it.
    assert_eq!(
        (of.memory, of.memory_swap),
        (Some(96 << 20), Some(96 << 20))
    );
    assert_eq!(
        (of.nano_cpus, of.pids_limit),
        (Some(500_000_000), Some(4096))
    );
    let restart = of.restart_policy.unwrap().name;
    assert_eq!(restart, Some(RestartPolicyNameEnum::UNLESS_STOPPED));
    assert_eq!(of.extra_hosts.unwrap(), ["db:192.0.2.7"]);
    assert_eq!(of.dns.unwrap(), ["192.0.2.53"]);
    let tmpfs = of.tmpfs.unwrap();
    assert_eq!(tmpfs["/run/x"], format!("size={}", 1 << 20));
    assert!(tmpfs.contains_key("/tmp"));
    let limit = of.ulimits.unwrap().remove(0);
    assert_eq!((limit.soft, limit.hard), (Some(512), Some(1024)));

    // The next release has the same data, and so has a container that is made anew.
    server.go_live("v2").await;
    assert_eq!(mounts(&container(&server).await.unwrap()), expected);
    let lost = container(&server).await.unwrap();
    let force = RemoveContainerOptionsBuilder::new().force(true).build();
    let docker = docker().await;
    let id = lost.id.clone().unwrap();
    docker.remove_container(&id, Some(force)).await.unwrap();
    let back = soon(async || {
        let found = container(&server).await;
        found.is_some_and(|it| it.id != lost.id && it.state.unwrap().running == Some(true))
    });
    assert!(back.await, "{}", server.log());
    assert_eq!(mounts(&container(&server).await.unwrap()), expected);

    let removed = server.cutover(&["remove", APP, "--yes"]);
    assert!({ removed }.status().unwrap().success());
    assert!(docker.inspect_volume(&named).await.is_ok(), "it is kept");
    let removed = server.cutover(&["remove", APP, "--yes", "--volumes"]);
    assert!({ removed }.status().unwrap().success());
    assert!(docker.inspect_volume(&named).await.is_err());
    docker.remove_network(&network).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_fails_a_deployment_before_anything_is_made() {
    let mut server = Server::with(&format!("{SETTINGS}env_file = \"hello.env\"\n")).await;
    let write = |text: &str| std::fs::write(server.stage.folder.join("hello.env"), text).unwrap();
    write("A=1");
    server.go_live("v1").await;
    let before = container(&server).await.unwrap().id;

    // Docker's own file is bounded, where nothing else is said.
    let log = container(&server)
        .await
        .unwrap()
        .host_config
        .unwrap()
        .log_config
        .unwrap();
    assert_eq!(log.config.unwrap()["max-size"], "10m");

    write("hunter2 is no line");
    let id = server.push("v2", "").await;
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed");
    let shown = server.api(&format!("/api/v1/deployments/{id}")).await;
    assert_eq!(shown["error"]["code"], "environment", "{shown}");
    assert!(failed.steps.is_empty(), "nothing began");
    assert!(!format!("{log:?}{shown}").contains("hunter2"));
    assert_eq!(container(&server).await.unwrap().id, before);

    // A folder of this machine that is not there any more.
    write("A=1");
    let folder = server.stage.folder.join("gone");
    std::fs::create_dir(&folder).unwrap();
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace(
        "[docker]\n",
        &format!("[docker]\nallow_binds = [{folder:?}]\n"),
    );
    let mount = format!("volumes = [{{ host = {folder:?}, target = \"/x\" }}]\nenv_file");
    let text = text.replace("env_file", &mount);
    std::fs::write(&server.stage.config, text).unwrap();
    let reloaded = server.cutover(&["reload"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    std::fs::remove_dir(&folder).unwrap();
    let id = server.push("v3", "").await;
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed", "{log:#?}");
    let why = failed.error.unwrap().message;
    assert!(why.contains(folder.to_str().unwrap()), "{why}");
    assert!(failed.steps.is_empty(), "nothing began");
    assert!(!folder.exists(), "Docker would have made it");
    assert_eq!(container(&server).await.unwrap().id, before);
    assert_eq!(server.version().await, "v1");
    server.stop().await;
}

/// The settings as they are, and with the app named in `docker.allow`.
fn allow(server: &Server) {
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let text = text.replace("[docker]\n", &format!("[docker]\nallow = [\"{APP}\"]\n"));
    std::fs::write(&server.stage.config, text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_good_as_the_machine_is_for_named_apps_alone() {
    const SOCKET: &str = "/var/run/docker.sock";
    let keys = format!(
        "privileged = true\npid = \"host\"\ngpus = 2\nvolumes = [{{ host = \"{SOCKET}\", target = \"/d.sock\" }}]\n"
    );
    let mut server = Server::idle(&format!("{SETTINGS}{keys}")).await;
    let check = server.cutover(&["check"]).output().unwrap();
    assert_eq!(check.status.code(), Some(2));
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert_eq!(said.matches("`docker.allow`").count(), 3, "{said}");

    allow(&server);
    // There are no graphics cards here: the container is made, and cannot be started.
    server.set_env("CUTOVER_KILL_AT", "start.effected");
    server.serve().await;
    let id = server.push("v1", "").await;
    server.agent().ended().await.unwrap();
    let name = format!("cutover-{APP}-{id}-0");
    let found = docker().await.inspect_container(&name, None).await.unwrap();
    assert_eq!(
        mounts(&found),
        [format!(
            "{} -> /d.sock",
            std::fs::canonicalize(SOCKET).unwrap().display()
        )]
    );
    let of = found.host_config.unwrap();
    assert_eq!(
        (of.privileged, of.pid_mode.as_deref()),
        (Some(true), Some("host"))
    );
    let cards = of.device_requests.unwrap().remove(0);
    assert_eq!(cards.count, Some(2));
    assert_eq!(cards.capabilities, Some(vec![vec!["gpu".to_owned()]]));

    // Without the cards, and where nested engines may not give all capabilities, it runs; and what a release had is not for one that is not named any more.
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let [keys, text] = [keys, text].map(|text| {
        text.replace("gpus = 2\n", "")
            .replace("privileged = true\n", "")
    });
    std::fs::write(&server.stage.config, &text).unwrap();
    server.set_env("CUTOVER_KILL_AT", "");
    server.serve().await;
    server.go_live("v2").await;
    let text = text.replace(&keys, "");
    let text = text.replace(&format!("allow = [\"{APP}\"]\n"), "");
    std::fs::write(&server.stage.config, text).unwrap();
    let reload = server.cutover(&["reload"]).status().unwrap();
    assert!(reload.success());
    let again = server
        .cutover(&["restart", APP, "--json"])
        .output()
        .unwrap();
    let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
    let (failed, log) = server.ended(again["id"].as_str().unwrap()).await;
    assert_eq!(failed.state, "failed", "{log:#?}");
    assert_eq!(failed.error.unwrap().code, "environment");
    assert_eq!(server.version().await, "v2");
    server.go_live("v3").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_on_the_machine_s_own_network_is_replaced() {
    let settings = SETTINGS.replace("drain =", "strategy = \"recreate\"\ndrain =");
    let mut server = Server::idle(&format!("{settings}network = \"host\"\n")).await;
    allow(&server);
    let text = std::fs::read_to_string(&server.stage.config).unwrap();
    let port = format!("port = {}", free_address().port());
    std::fs::write(&server.stage.config, text.replace("port = 8080", &port)).unwrap();
    server.serve().await;
    server.go_live("v1").await;
    let found = container(&server).await.unwrap();
    assert_eq!(
        found.host_config.unwrap().network_mode.as_deref(),
        Some("host")
    );
    let load = server.load();
    load.until_more(20).await;
    server.go_live("v2").await;
    assert_eq!(server.version().await, "v2");
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");
    crate::crash::agrees(&server, "host network").await;
    server.stop().await;
}
