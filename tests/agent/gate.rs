//! The test of an image with what it needs beside it, and what it says of each single test.

use std::collections::HashMap;

use bollard::Docker;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveImageOptions,
};
use futures_util::StreamExt;

use crate::server::{File, SETTINGS, Server, files};
use crate::support::docker::docker;
use crate::support::tool;
use crate::support::wait::soon;

const DOCKERFILE: &str = "\
FROM scratch AS run
COPY hello version behaviour /
STOPSIGNAL SIGKILL
ENTRYPOINT [\"/hello\"]
FROM run AS test
COPY busybox /bin/busybox
COPY busybox /bin/sh
COPY test.sh junit.xml /
";

const GATE: &str = r#"
[apps.hello.build]
target = "run"
[apps.hello.test]
target = "test"
command = "/bin/sh /test.sh"
junit = "/junit.xml"
[apps.hello.test.needs.db]
image = "IMAGE"
command = ["/bin/busybox", "sh", "-c", "SERVER"]
env = { WORD = "swordfish" }
port = 7000
deadline = "20s"
"#;

const SERVES: &str = "echo $WORD > /word; exec busybox httpd -f -p 7000 -h /";

const TEST: &str = "set -e
said=$(busybox wget -q -O - http://db:7000/word)
echo \"the database said $said\"
test \"$said\" = swordfish
";

const GOOD: &str =
    "<testsuite><testcase name='adds'/><testcase name='waits'><skipped/></testcase></testsuite>";
const BAD: &str = "<testsuite><testcase classname='Sum' name='adds'><failure>1 is not 2</failure></testcase>\
                   <testcase name='starts'/></testsuite>";

/// An image with a shell that only this engine has; gone with this.
struct Image(String);

impl Image {
    /// `None` where there is nothing to make it of.
    async fn make(of: &str) -> Option<Self> {
        let Ok(busybox) = std::fs::read("/bin/busybox") else {
            tool::skip("there is no /bin/busybox (apt-get install busybox-static)");
            return None;
        };
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["bin/busybox", "bin/sh"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(busybox.len() as u64);
            header.set_mode(0o755);
            (archive.append_data(&mut header, name, busybox.as_slice())).unwrap();
        }
        let name = format!("cutover-gate-{}-{of}", std::process::id());
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(&name)
            .tag("1")
            .changes(vec!["ENV PATH=/bin".to_owned()])
            .build();
        let body = bollard::body_full(archive.into_inner().unwrap().into());
        let docker = docker().await;
        let mut made = Box::pin(docker.create_image(Some(options), Some(body), None));
        while let Some(message) = made.next().await {
            message.unwrap();
        }
        Some(Self(format!("{name}:1")))
    }

    async fn remove(self) {
        let removed = docker().await;
        let removed = removed.remove_image(&self.0, None::<RemoveImageOptions>, None);
        removed.await.unwrap();
    }
}

fn app(version: &str, test: &str, junit: &str) -> Vec<File> {
    let mut all = files(version, "");
    all.retain(|it| it.path != "Dockerfile");
    all.push(File::new("Dockerfile", DOCKERFILE));
    all.push(File {
        mode: 0o100_755,
        ..File::new("busybox", std::fs::read("/bin/busybox").unwrap())
    });
    all.push(File::new("test.sh", test));
    all.push(File::new("junit.xml", junit));
    all
}

fn settings(image: &Image, server: &str) -> String {
    let gate = GATE.replace("IMAGE", &image.0).replace("SERVER", server);
    format!("{SETTINGS}{gate}")
}

/// The names of the server's containers and networks that belong to tests.
async fn of_tests(docker: &Docker, server: &Server) -> Vec<String> {
    let label = format!("cutover.data-dir={}", server.stage.data_dir.display());
    let filters = HashMap::from([("label", vec![label.as_str()])]);
    let containers = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters);
    let containers = docker.list_containers(Some(containers.build())).await;
    let networks = ListNetworksOptionsBuilder::new().filters(&filters);
    let networks = docker.list_networks(Some(networks.build())).await.unwrap();
    let mut names: Vec<String> = networks.into_iter().filter_map(|it| it.name).collect();
    let named = containers.unwrap().into_iter();
    names.extend(named.flat_map(|it| it.names.unwrap_or_default()));
    names.retain(|name| name.contains("-test") || name.ends_with(".test"));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_test_needs_is_there_by_its_name_and_gone_afterwards() {
    let Some(image) = Image::make("serves").await else {
        return;
    };
    let server = Server::with(&settings(&image, SERVES)).await;
    let docker = docker().await;
    let id = server.push_files(&app("v1", TEST, GOOD), "v1").await;
    let (good, log) = server.ended(&id).await;
    let log = log.join("\n");
    assert_eq!(good.state, "live", "{log}");
    assert!(log.contains("the database said swordfish"), "{log}");
    let tests = good.tests.unwrap();
    assert_eq!((tests.tests, tests.failed, tests.skipped), (2, 0, 1));
    // Which image it was is recorded, though its name may move on. In containerd's store its id is its digest.
    let of_need = docker.inspect_image(&image.0).await.unwrap().id.unwrap();
    let step = good.steps.iter().find(|it| it.name == "test").unwrap();
    let detail = step.detail.as_deref().unwrap();
    let known = [", ", "@"].map(|by| format!("`db` from `{}{by}{of_need}`", image.0));
    assert!(known.iter().any(|it| detail.contains(it)), "{detail}");
    assert_eq!(of_tests(&docker, &server).await, Vec::<String>::new());

    let failing = format!("{TEST}exit 3\n");
    let id = server.push_files(&app("v2", &failing, BAD), "v2").await;
    let (bad, log) = server.ended(&id).await;
    assert_eq!(bad.error.unwrap().code, "test_failed", "{log:#?}");
    let tests = bad.tests.unwrap();
    assert_eq!((tests.tests, tests.failed), (2, 1));
    assert_eq!(tests.failures, ["Sum.adds"]);
    assert_eq!(of_tests(&docker, &server).await, Vec::<String>::new());
    assert_eq!(server.version().await, "v1");
    let shown = server.cutover(&["show", &id]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("failed: Sum.adds"), "{shown}");
    drop(server);
    image.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_need_that_does_not_come_up_fails_the_test_with_its_last_words() {
    let Some(image) = Image::make("dies").await else {
        return;
    };
    let dies = "echo no room for the table; exit 4";
    let server = Server::with(&settings(&image, dies)).await;
    let docker = docker().await;
    let id = server.push_files(&app("v1", TEST, GOOD), "v1").await;
    let error = server.ended(&id).await.0.error.unwrap();
    assert_eq!(error.code, "need_failed", "{error:?}");
    assert_eq!(error.log_tail, ["no room for the table"]);
    assert_eq!(of_tests(&docker, &server).await, Vec::<String>::new());
    drop(server);
    image.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_removes_what_its_test_needed_and_tests_again() {
    let Some(image) = Image::make("stays").await else {
        return;
    };
    let mut server = Server::with(&settings(&image, SERVES)).await;
    let docker = docker().await;
    let waits = format!("{TEST}busybox sleep 600\n");
    let id = server.push_files(&app("v1", &waits, GOOD), "v1").await;
    server.until_log(&id, "the database said swordfish").await;
    let need = format!("cutover-hello-{id}-test-db");
    let before = docker.inspect_container(&need, None).await.unwrap().id;
    server.agent().kill().await.unwrap();
    assert!(of_tests(&docker, &server).await.len() >= 3, "they are left");
    server.serve().await;
    let is_new = async || {
        let found = docker.inspect_container(&need, None).await;
        found.is_ok_and(|found| found.id != before)
    };
    assert!(soon(is_new).await);
    assert!(server.cutover(&["cancel", &id]).status().unwrap().success());
    assert_eq!(server.ended(&id).await.0.state, "cancelled");
    assert_eq!(of_tests(&docker, &server).await, Vec::<String>::new());
    drop(server);
    image.remove().await;
}
