//! Secrets that Cutover keeps: given to the app, and to nobody else.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use ::http::Request;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::dashboard::{cookie, filled};
use crate::processes::rewrite;
use crate::server::{APP, SETTINGS, Server};
use crate::support::demo::http;
use crate::support::docker::docker;
use crate::support::wait::soon;

const VALUE: &str = "hunter2-canary-7d1f";

/// `cutover secret …` with this input; gives its JSON.
fn secret(server: &Server, arguments: &[&str], input: &str) -> Result<Value, String> {
    let arguments = [&["secret"], arguments, &["--json"]].concat();
    let mut command = server.cutover(&arguments);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    match done.status.success() {
        true => Ok(serde_json::from_slice(&done.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&done.stderr).into_owned()),
    }
}

/// The environment of the live release's only container.
async fn environment(server: &Server) -> HashMap<String, String> {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release
               WHERE i.retiring_since IS NULL";
    let name: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    let found = docker().await.inspect_container(&name, None).await.unwrap();
    let env = found.config.unwrap().env.unwrap();
    let pair = |it: String| {
        let (name, value) = it.split_once('=').unwrap();
        (name.to_owned(), value.to_owned())
    };
    env.into_iter().map(pair).collect()
}

/// Every file below `folder` that contains `text`.
fn containing(folder: &Path, text: &str, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            containing(&path, text, found);
        } else if std::fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|it| it == text.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_reaches_the_app_without_a_build_and_nobody_else() {
    let settings = format!("{SETTINGS}secrets = [\"DATABASE_URL\"]\n");
    let mut server = Server::with(&settings).await;
    let id = server.push("v1", "").await;
    let (failed, log) = server.ended(&id).await;
    assert_eq!(failed.state, "failed", "{log:#?}");
    assert_eq!(failed.error.unwrap().code, "missing_secret");
    assert!(failed.steps.is_empty(), "nothing began");

    let set = secret(
        &server,
        &["set", APP, "DATABASE_URL"],
        &format!("{VALUE}\n"),
    )
    .unwrap();
    assert_eq!(
        (&set["changed"], &set["deployment"]),
        (&json!(1), &Value::Null)
    );
    let first = server.go_live("v2").await;
    assert_eq!(environment(&server).await["DATABASE_URL"], VALUE);

    // The same value changes nothing; another is deployed, without a build.
    let set = secret(&server, &["set", APP, "DATABASE_URL"], VALUE).unwrap();
    assert_eq!(set["changed"], 0);
    let load = server.load();
    let file = server.stage.folder.join("secrets.env");
    std::fs::write(
        &file,
        format!("DATABASE_URL='{VALUE}-2'\nOTHER={VALUE}-3\n"),
    )
    .unwrap();
    let set = secret(&server, &["import", APP, file.to_str().unwrap()], "").unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(set["changed"], 2);
    let id = set["deployment"]["id"].as_str().unwrap();
    let (again, log) = server.ended(id).await;
    assert_eq!(again.state, "live", "{log:#?}");
    let steps: Vec<_> = again.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        steps[..2],
        ["start", "probe"],
        "nothing is fetched or built"
    );
    let env = environment(&server).await;
    assert_eq!(env["DATABASE_URL"], format!("{VALUE}-2"));
    assert_eq!(env["OTHER"], format!("{VALUE}-3"));
    assert_eq!(env["CUTOVER_REF"], "refs/heads/main");
    let report = load.stop().await;
    assert!(report.failures.is_empty(), "{report}");

    // Whatever does not go through with a change, changes nothing.
    let refused = secret(&server, &["unset", APP, "OTHER", "NONE"], "").unwrap_err();
    assert!(refused.contains("NONE"), "{refused}");
    let refused = secret(&server, &["set", APP, "A B"], VALUE).unwrap_err();
    let wrong = Request::post(format!("/api/v1/apps/{APP}/secrets"))
        .header("authorization", format!("Bearer {}", server.token()));
    let body = json!({ "set": { "A": [VALUE] } });
    let wrong = server.ask(wrong, body.to_string()).await;
    assert_eq!(wrong.status, 400);
    let list = secret(&server, &["list", APP], "").unwrap();
    let names: Vec<_> = list["items"].as_array().unwrap().iter().collect();
    let names: Vec<_> = names
        .iter()
        .map(|it| (&it["name"], &it["version"]))
        .collect();
    assert_eq!(
        names,
        [
            (&json!("DATABASE_URL"), &json!(2)),
            (&json!("OTHER"), &json!(1))
        ]
    );

    let path = format!("/api/v1/apps/{APP}/secrets?limit=1");
    let page = server.api(&path).await;
    assert_eq!(page["next"], "DATABASE_URL", "{page}");
    let page = server.api(&format!("{path}&cursor=DATABASE_URL")).await;
    assert_eq!(
        (&page["items"][0]["name"], page["next"].is_null()),
        (&json!("OTHER"), true)
    );

    // A rollback has the values of now.
    let back = ["rollback", APP, "--to", &first.id, "--follow"];
    let back = server.cutover(&back).output().unwrap();
    assert!(back.status.success(), "{back:?}");
    assert_eq!(
        environment(&server).await["DATABASE_URL"],
        format!("{VALUE}-2")
    );

    // The canary: neither in the database and its log, nor in any other file, answer or message.
    let mut told = format!("{refused}{}{list}", wrong.text());
    for path in [
        format!("/api/v1/apps/{APP}"),
        format!("/api/v1/apps/{APP}/releases"),
        format!("/api/v1/apps/{APP}/deployments"),
        format!("/api/v1/apps/{APP}/secrets"),
        format!("/api/v1/deployments/{id}"),
    ] {
        told += &server.api(&path).await.to_string();
    }
    let cookie = cookie(&server).await;
    for page in ["/", "/server", "/apps/hello", "/apps/hello/log"] {
        let shown = Request::get(page).header("cookie", &cookie);
        told += &server.ask(shown, "").await.text();
    }
    told += &server.ask(Request::get("/metrics"), "").await.text();
    // Of the engine's settings only the container's own environment has it.
    let image = server.api(&format!("/api/v1/deployments/{id}")).await["image_id"].clone();
    let engine = docker().await;
    let image = engine.inspect_image(image.as_str().unwrap()).await.unwrap();
    told += &serde_json::to_string(&image).unwrap();
    told += &log.join("\n");
    assert!(!told.contains(VALUE), "{told}");
    let mut found = Vec::new();
    containing(&server.stage.folder, VALUE, &mut found);
    assert_eq!(found, [""; 0]);

    // Restarted, the agent can still read them; a container that is lost comes back with them.
    server.stop().await;
    server.serve().await;
    let before = container_of(&server);
    docker()
        .await
        .remove_container(
            &before,
            Some(
                bollard::query_parameters::RemoveContainerOptionsBuilder::new()
                    .force(true)
                    .build(),
            ),
        )
        .await
        .unwrap();
    let back = soon(async || {
        docker()
            .await
            .inspect_container(&before, None)
            .await
            .is_ok()
    });
    assert!(back.await, "{}", server.log());
    assert_eq!(environment(&server).await["OTHER"], format!("{VALUE}-3"));

    // Who changed them is on record, without a value.
    let actions = server.api("/api/v1/actions?limit=1&action=secrets").await;
    let newest = &actions["items"][0];
    assert_eq!(
        (&newest["action"], &newest["app"]),
        (&json!("secrets"), &json!(APP))
    );
    assert_eq!(newest["requested_by"]["kind"], "local", "{newest}");
    assert_eq!(newest["detail"]["set"], json!(["DATABASE_URL", "OTHER"]));
    let cursor = actions["next"].as_str().unwrap();
    let next = format!("/api/v1/actions?limit=9&cursor={cursor}");
    assert!(!server.api(&next).await["items"].to_string().contains(VALUE));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_what_is_wrong_with_the_key() {
    let mut server = Server::start().await;
    secret(&server, &["set", APP, "A"], VALUE).unwrap();
    secret(&server, &["set", APP, "B"], VALUE).unwrap();
    let said = || {
        let doctor = server.cutover(&["doctor"]).output().unwrap();
        String::from_utf8(doctor.stdout).unwrap()
    };
    let key = server.stage.data_dir.join("secrets.key");
    let moved = server.stage.data_dir.join("moved.key");
    assert!(!said().contains("secrets.key"), "{}", said());

    std::fs::rename(&key, &moved).unwrap();
    assert!(said().contains("secrets.key`, is missing"), "{}", said());
    std::fs::write(&key, format!("{}\n", "ab".repeat(32))).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let other = said();
    assert!(
        other.contains("2 of 2 secrets of `hello` cannot be decrypted"),
        "{other}"
    );
    assert!(other.contains("chmod 600"), "{other}");
    assert!(!other.contains(VALUE));
    std::fs::write(&key, "nonsense").unwrap();
    assert!(said().contains("cannot be used"), "{}", said());
    std::fs::rename(&moved, &key).unwrap();
    assert!(!said().contains("secrets.key"), "{}", said());
    server.stop().await;
}

fn instances(server: &Server) -> i64 {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT count(*) FROM instances i JOIN apps a ON a.live_release = i.release
               WHERE i.retiring_since IS NULL";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn container_of(server: &Server) -> String {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT i.name FROM instances i JOIN apps a ON a.live_release = i.release
               WHERE i.retiring_since IS NULL";
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_and_a_push_that_wait_do_not_take_each_others_place() {
    let mut server = Server::start().await;
    server.go_live("v1").await;
    // While this one starts, the others wait.
    let slow = server.push("v2", "slow-start 3000").await;
    server.until_log(&slow, "[build]").await;
    let set = secret(&server, &["set", APP, "A"], "1").unwrap();
    let more = secret(&server, &["set", APP, "B"], "2").unwrap();
    assert_eq!(
        set["deployment"]["id"], more["deployment"]["id"],
        "one for both"
    );
    let pushed = server.cutover(&["deploy", APP, "--json"]).output().unwrap();
    let pushed: Value = serde_json::from_slice(&pushed.stdout).unwrap();
    for id in [
        slow.as_str(),
        set["deployment"]["id"].as_str().unwrap(),
        pushed["id"].as_str().unwrap(),
    ] {
        let (ended, log) = server.ended(id).await;
        assert_eq!(ended.state, "live", "{log:#?}");
    }
    let env = environment(&server).await;
    assert_eq!((env["A"].as_str(), env["B"].as_str()), ("1", "2"));
    assert_eq!(server.version().await, "v2");

    // And what is live starts again on request.
    let before = container_of(&server);
    let restart = server
        .cutover(&["restart", APP, "--follow"])
        .output()
        .unwrap();
    assert!(restart.status.success(), "{restart:?}");
    assert_ne!(container_of(&server), before);

    // How many instances there are is kept through deployments.
    let scaled = server
        .cutover(&["scale", APP, "web=2", "--follow"])
        .output()
        .unwrap();
    assert!(scaled.status.success(), "{scaled:?}");
    assert_eq!(instances(&server), 2);
    let page = format!("/api/v1/apps/{APP}/instances?limit=1");
    assert!(!server.api(&page).await["next"].is_null());
    server.go_live("v3").await;
    assert_eq!(instances(&server), 2);
    let scaled = server
        .cutover(&["scale", APP, "default", "--follow"])
        .output()
        .unwrap();
    assert!(scaled.status.success(), "{scaled:?}");
    assert_eq!(instances(&server), 1);
    server.stop().await;
}

/// The folders of secrets as files, in memory.
fn folders(server: &Server) -> Vec<String> {
    let db = Connection::open(server.stage.data_dir.join("cutover.db")).unwrap();
    let sql = "SELECT value FROM meta WHERE key = 'agent_id'";
    let id: String = db.query_row(sql, [], |row| row.get(0)).unwrap();
    let places = ["/run", "/dev/shm"].map(|it| format!("{it}/cutover-{id}"));
    let found = places.iter().filter_map(|it| std::fs::read_dir(it).ok());
    let names = found.flatten().flatten();
    names
        .map(|it| it.file_name().into_string().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_may_be_a_file_in_memory_and_no_view_of_the_output_shows_one() {
    let mut server = Server::start().await;
    let proxy = server.agent().proxy;
    let token = "sesame-canary-52ab";
    server.go_live("v1").await;
    // Named when the app was live already; it is a file from the first deployment on.
    let named = "[apps.hello.run]\nsecrets = { TLS_KEY = { file = true } }";
    rewrite(&server, "[apps.hello.run]", named);
    assert!(server.cutover(&["reload"]).status().unwrap().success());
    secret(&server, &["set", APP, "TLS_KEY", "--follow"], VALUE).unwrap();
    assert!(!environment(&server).await.contains_key("TLS_KEY"));
    secret(&server, &["set", APP, "TOKEN", "--follow"], token).unwrap();
    let cat = |server: &Server| {
        let read = ["exec", APP, "--", "/hello", "cat", "/run/secrets/TLS_KEY"];
        let read = server.cutover(&read).output().unwrap();
        String::from_utf8(read.stdout).unwrap()
    };
    assert_eq!(cat(&server), VALUE);
    assert_eq!(environment(&server).await["TOKEN"], token);
    let name = container_of(&server);
    let found = docker().await.inspect_container(&name, None).await.unwrap();
    let told = serde_json::to_string(&found).unwrap();
    assert!(told.contains("/run/secrets"), "{told}");
    assert!(!told.contains(VALUE), "{told}");

    // What the app prints of them is hidden wherever it is shown or kept.
    let print = async |text: String| {
        let request = Request::post("/count").header("host", "hello.test");
        let answer = http::send(proxy, request, text.into_bytes()).await;
        assert_eq!(answer.unwrap().status, 200);
    };
    print(format!("one {token} {VALUE}")).await;
    let encoded = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        format!("user:{token}"),
    );
    print(format!("two {encoded}")).await;
    let logs = |server: &Server| {
        let logs = server.cutover(&["logs", APP]).output().unwrap();
        String::from_utf8(logs.stdout).unwrap()
    };
    let shown = soon(async || logs(&server).contains("count two")).await;
    assert!(shown, "{}", logs(&server));
    assert!(
        logs(&server).contains("count one *** ***"),
        "{}",
        logs(&server)
    );
    assert!(
        !logs(&server).contains(&encoded[8..20]),
        "{}",
        logs(&server)
    );

    server.go_live("v2").await;
    let one = soon(async || folders(&server) == [container_of(&server)]).await;
    assert!(one, "{:?}\n{}", folders(&server), server.log());
    assert_eq!(cat(&server), VALUE);
    assert!(
        logs(&server).contains("count one ***"),
        "of an instance that is gone"
    );
    let mut found = Vec::new();
    for hidden in [VALUE, token, &encoded[8..20]] {
        containing(&server.stage.folder, hidden, &mut found);
    }
    assert_eq!(found, [""; 0]);
    let removed = server.cutover(&["remove", APP, "--yes"]).status().unwrap();
    assert!(removed.success());
    let gone = soon(async || folders(&server).is_empty()).await;
    assert!(gone, "{:?}", folders(&server));
    server.stop().await;
}

/// Killed with the new key beside the old one, and with everything sealed by it: whichever it is, every value
/// can be read, and the next start ends the change.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_replaces_the_old_one_whenever_it_is_cut_short() {
    let mut server = Server::start().await;
    secret(&server, &["set", APP, "A"], VALUE).unwrap();
    server.go_live("v1").await;
    let path = server.stage.data_dir.join("secrets.key");
    let next = server.stage.data_dir.join("secrets.key.next");
    let key = || std::fs::read_to_string(&path).unwrap();
    let mut before = key();
    for at in ["rekeying", "rekeyed", ""] {
        server.agent().kill().await.unwrap();
        server.set_env("CUTOVER_KILL_AT", at);
        server.serve().await;
        let done = secret(&server, &["rekey"], "");
        if !at.is_empty() {
            assert!(done.is_err(), "{at}");
            server.agent().ended().await.unwrap();
            assert!(next.exists(), "{at}");
            assert_eq!(key(), before, "{at}");
            server.set_env("CUTOVER_KILL_AT", "");
            server.serve().await;
        } else {
            assert_eq!(done.unwrap()["secrets"], 1);
        }
        let changed = soon(async || key() != before && !next.exists()).await;
        assert!(changed, "{at}\n{}", server.log());
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{at}");
        before = key();
        let status = server.cutover(&["restart", APP, "--follow"]).status();
        assert!(status.unwrap().success(), "{at}\n{}", server.log());
        assert_eq!(environment(&server).await["A"], VALUE, "{at}");
        let list = secret(&server, &["list", APP], "").unwrap();
        assert_eq!(list["items"][0]["version"], 1, "the value is the same");
    }

    // With a key that is not theirs nothing is changed.
    std::fs::write(&path, format!("{}\n", "0".repeat(64))).unwrap();
    let refused = secret(&server, &["rekey"], "").unwrap_err();
    assert!(refused.contains("`A`"), "{refused}");
    assert!(!next.exists());
    std::fs::write(&path, &before).unwrap();
    let status = server.cutover(&["restart", APP, "--follow"]).status();
    assert!(status.unwrap().success(), "{}", server.log());
    server.stop().await;
}

/// A rollback has the secrets of now, unless it is asked for those that the release started with.
#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_can_bring_back_the_secrets_of_then() {
    let mut server = Server::start().await;
    let (old, new) = (format!("{VALUE}-old"), format!("{VALUE}-new"));
    secret(&server, &["set", APP, "A"], &old).unwrap();
    let first = server.go_live("v1").await;
    secret(&server, &["set", APP, "A", "--no-deploy"], &new).unwrap();
    secret(&server, &["set", APP, "B", "--no-deploy"], &new).unwrap();
    let second = server.go_live("v2").await;
    let back = |to: &str, more: &[&str]| {
        let back = [&["rollback", APP, "--to", to, "--follow"], more].concat();
        let done = server.cutover(&back).output().unwrap();
        done.status.code()
    };
    let has = async |a: &str, b: Option<&str>| {
        let env = environment(&server).await;
        env["A"] == a && env.get("B").map(String::as_str) == b
    };
    let versions = || {
        let list = secret(&server, &["list", APP], "").unwrap();
        let all = list["items"].as_array().unwrap().iter();
        all.map(|it| it["version"].as_u64().unwrap())
            .collect::<Vec<_>>()
    };

    // Whoever may deploy may not change secrets.
    let token = server.cutover(&["token", "create", "ci", "--role", "deploy", "--json"]);
    let token = { token }.output().unwrap();
    let token: Value = serde_json::from_slice(&token.stdout).unwrap();
    let token = token["secret"].as_str().unwrap();
    let ask = Request::post(format!("/api/v1/apps/{APP}/rollback"))
        .header("authorization", format!("Bearer {token}"));
    let answer = server.ask(ask, r#"{"secrets": true}"#).await;
    assert_eq!(answer.status, 403, "{}", answer.text());

    assert_eq!(back(&first.id, &["--secrets"]), Some(0), "{}", server.log());
    assert!(has(&old, None).await);
    assert_eq!(versions(), [1]);
    // Nothing to do; and a new key seals the values of before too.
    assert_eq!(back(&first.id, &["--secrets"]), Some(2));
    secret(&server, &["rekey"], "").unwrap();
    assert_eq!(back(&second.id, &[]), Some(0), "{}", server.log());
    assert!(has(&old, None).await);
    // Live already, it is started again with them.
    assert_eq!(
        back(&second.id, &["--secrets"]),
        Some(0),
        "{}",
        server.log()
    );
    assert!(has(&new, Some(&new)).await, "{:?}", versions());
    assert_eq!(versions(), [2, 1]);

    let actions = server.api("/api/v1/actions?limit=1&action=secrets").await;
    let detail = &actions["items"][0]["detail"];
    assert_eq!(detail["set"], json!(["A", "B"]), "{actions}");

    // On the page too, where they differ.
    let cookie = cookie(&server).await;
    let release = server
        .api(&format!("/api/v1/deployments/{}", first.id))
        .await["release"]
        .clone();
    let page = format!("/apps/{APP}/rollback?to={}", release.as_str().unwrap());
    let chosen = filled(&server, &cookie, &page, &[("secrets", "yes")]).await;
    let place = chosen.headers.get("location").expect("the deployment");
    let id = place.to_str().unwrap().rsplit_once('/').unwrap().1;
    assert_eq!(server.ended(id).await.0.state, "live");
    assert!(has(&old, None).await);
    let shown = Request::get(page).header("cookie", &cookie);
    let shown = server.ask(shown, "").await.text();
    assert!(!shown.contains("name=\"secrets\""), "{shown}");

    // The release before, even if nothing but a secret differs.
    let worse = format!("{VALUE}-worse");
    secret(&server, &["set", APP, "A", "--follow"], &worse).unwrap();
    assert!(has(&worse, None).await);
    let back = ["rollback", APP, "--secrets", "--follow"];
    let back = server.cutover(&back).status().unwrap();
    assert!(back.success(), "{}", server.log());
    assert!(has(&old, None).await);
    let mut found = Vec::new();
    containing(&server.stage.folder, VALUE, &mut found);
    assert_eq!(found, [""; 0]);
    server.stop().await;
}

/// systemd hands the key over: it is in no file of the agent's, and a new one comes the same way.
#[tokio::test(flavor = "multi_thread")]
async fn the_key_may_be_a_credential_of_systemd() {
    let mut server = Server::start().await;
    secret(&server, &["set", APP, "A"], VALUE).unwrap();
    server.go_live("v1").await;
    let file = server.stage.data_dir.join("secrets.key");
    assert!(file.exists());
    let given = server.stage.folder.join("credentials");
    std::fs::create_dir(&given).unwrap();
    let credential = |name: &str, digit: &str| {
        std::fs::write(given.join(name), format!("{}\n", digit.repeat(64))).unwrap();
    };
    server.set_env("CREDENTIALS_DIRECTORY", given.to_str().unwrap());
    credential("cutover-key", "1");
    for (at, next) in ["", "2", "3"].into_iter().enumerate() {
        if !next.is_empty() {
            let refused = secret(&server, &["rekey"], "").unwrap_err();
            assert!(refused.contains("cutover-key.next"), "{refused}");
            credential("cutover-key.next", next);
        }
        server.stop().await;
        server.serve().await;
        let done = async || server.log().matches("sealed anew").count() == at + 1;
        assert!(soon(done).await, "{at}\n{}", server.log());
        assert!(!file.exists());
        if !next.is_empty() {
            std::fs::remove_file(given.join("cutover-key.next")).unwrap();
            credential("cutover-key", next);
        }
        let status = server.cutover(&["restart", APP, "--follow"]).status();
        assert!(status.unwrap().success(), "{at}\n{}", server.log());
        assert_eq!(environment(&server).await["A"], VALUE, "{at}");
    }
    // A value that is new is sealed with it too, and no key is written.
    secret(&server, &["set", APP, "B", "--no-deploy"], VALUE).unwrap();
    assert!(!file.exists());
    server.stop().await;
}

/// Required, but never set: said before a deployment fails of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_told_by_check_and_doctor() {
    let settings = format!("{SETTINGS}secrets = [\"DATABASE_URL\"]\n");
    let mut server = Server::with(&settings).await;
    let said = |verb: &str| {
        let done = server.cutover(&[verb]).output().unwrap();
        String::from_utf8([done.stdout, done.stderr].concat()).unwrap()
    };
    let hint = format!("cutover secret set {APP} DATABASE_URL");
    for verb in ["check", "doctor"] {
        assert!(said(verb).contains(&hint), "{}", said(verb));
    }
    secret(&server, &["set", APP, "DATABASE_URL"], VALUE).unwrap();
    for verb in ["check", "doctor"] {
        assert!(!said(verb).contains(&hint), "{}", said(verb));
    }
    server.stop().await;
}
