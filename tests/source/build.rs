//! Images from real commits on a real engine.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error as DockerError;
use bollard::query_parameters::{
    CreateImageOptionsBuilder, RemoveImageOptions, TagImageOptionsBuilder,
};
use cutover::build::{self, BuildError, Built, Context, Inputs, Request};
use cutover::config::{self, Pull, Repo, Source, Value};
use cutover::ids::{AgentId, AppName, DeploymentId};
use cutover::source::{Commit, Fetching, Mirror, Revision};
use cutover::store::images::Recorded;
use cutover::store::log::Log;
use futures_util::StreamExt;
use git2::{Oid, Repository, Signature, Time};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::remote;
use crate::support::docker::docker;
use crate::support::tool;
use cutover::cli::setup::DEFAULT_HOST;
use cutover::engine::Engine;

/// A repository with one app; its images are taken away at the end.
pub struct Scene {
    pub folder: TempDir,
    pub origin: Repository,
    pub docker: Docker,
    pub app: AppName,
    pub agent: AgentId,
    pub settings: config::Build,
    pub no_cache: bool,
    pull: Pull,
    /// What the agent's database would hold.
    recorded: Mutex<HashMap<String, Recorded>>,
}

pub enum File<'a> {
    Text(&'a str),
    Program(&'a str),
    Link(&'a str),
    Submodule(Oid),
}
use File::{Link, Program, Submodule, Text};

impl Scene {
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let origin = Repository::init_bare(folder.path().join("origin.git")).unwrap();
        Self {
            folder,
            origin,
            docker: docker().await,
            app: format!("buildtest-{}-{number}", std::process::id())
                .parse()
                .unwrap(),
            agent: AgentId::new(),
            settings: config::Build {
                timeout: Duration::from_secs(120),
                ..config::Build::default()
            },
            no_cache: false,
            pull: Pull::Missing,
            recorded: Mutex::default(),
        }
    }

    pub fn mirror(&self) -> Mirror {
        let repo = Repo::Local(self.folder.path().join("origin.git"));
        Mirror::new(
            self.folder.path().join("mirror.git"),
            repo,
            Source::default(),
        )
    }

    pub fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A commit of exactly these files, fetched into the mirror.
    pub fn commit(&self, files: &[(&str, File<'_>)]) -> Commit {
        self.commit_with(files, None)
    }

    /// The same with a folder of this name and tree.
    pub fn commit_with(&self, files: &[(&str, File<'_>)], folder: Option<(&str, Oid)>) -> Commit {
        let mut index = git2::Index::new().unwrap();
        for (path, file) in files {
            let (mode, text) = match file {
                Text(text) => (0o100644, *text),
                Program(text) => (0o100755, *text),
                Link(target) => (0o120000, *target),
                Submodule(_) => (0o160000, ""),
            };
            let id = match file {
                Submodule(id) => *id,
                _ => self.origin.blob(text.as_bytes()).unwrap(),
            };
            index
                .add(&git2::IndexEntry {
                    ctime: git2::IndexTime::new(0, 0),
                    mtime: git2::IndexTime::new(0, 0),
                    dev: 0,
                    ino: 0,
                    mode,
                    uid: 0,
                    gid: 0,
                    file_size: 0,
                    id,
                    flags: 0,
                    flags_extended: 0,
                    path: path.as_bytes().to_vec(),
                })
                .unwrap();
        }
        let tree = index.write_tree_to(&self.origin).unwrap();
        let tree = self.origin.find_tree(tree).unwrap();
        let mut builder = self.origin.treebuilder(Some(&tree)).unwrap();
        if let Some((name, id)) = folder {
            builder.insert(name, id, 0o040000).unwrap();
        }
        let tree = self.origin.find_tree(builder.write().unwrap()).unwrap();
        let parent = self.origin.find_reference("refs/heads/main").ok();
        let parent = parent.map(|tip| tip.peel_to_commit().unwrap());
        // Each commit a day after the one before, as time must not disturb the builder's cache.
        let day = parent.as_ref().map_or(0, |parent| parent.time().seconds()) + 86_400;
        let who = Signature::new("Ann", "ann@example.com", &Time::new(day, 0)).unwrap();
        let parents: Vec<_> = parent.iter().collect();
        (self
            .origin
            .commit(Some("refs/heads/main"), &who, &who, "test", &tree, &parents))
        .unwrap();
        let far = Instant::now() + Duration::from_secs(30);
        let want = Revision::Branch("main".into());
        (self
            .mirror()
            .fetch(&want, &|_| {}, &CancellationToken::new(), far))
        .unwrap()
    }

    fn tag(&self, name: &str) -> String {
        format!("cutover/{}:{name}", self.app)
    }

    pub async fn build(&self, commit: &Commit, name: &str) -> Result<Built, BuildError> {
        self.build_until(commit, name, &CancellationToken::new())
            .await
    }

    async fn build_until(
        &self,
        commit: &Commit,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<Built, BuildError> {
        let mirror = self.mirror();
        let version = |_: &str, value: &[u8]| format!("{:?}", Sha256::digest(value));
        let inputs = Inputs::read(&self.settings, version)?;
        let request = Request {
            app: &self.app,
            commit,
            from: None,
            settings: &self.settings,
            inputs: &inputs,
            branch: "main",
            git_ref: "refs/heads/main",
            mirror: &mirror,
            tags: vec![self.tag(name), self.tag(commit.id.short())],
            labels: HashMap::from([
                ("cutover.image.agent".into(), self.agent.to_string()),
                // By which a later run finds what this one leaves if it dies.
                (
                    "cutover.image.data-dir".into(),
                    self.folder.path().display().to_string(),
                ),
            ]),
            no_cache: self.no_cache,
            pull: self.pull,
            recorded: self.recorded.lock().unwrap().clone(),
        };
        let log = Log::open(&self.log_path()).unwrap();
        let host = DEFAULT_HOST.to_owned();
        let engine = Engine::docker(host, self.agent.clone(), self.folder.path());
        let built = build::image(&engine, &request, &log, cancel).await?;
        let image = Recorded {
            id: built.image_id.clone(),
            deployment: None,
        };
        let key = built.cache_key.clone();
        self.recorded.lock().unwrap().insert(key, image);
        Ok(built)
    }

    async fn image_of(&self, tag: &str) -> Option<String> {
        let found = self.docker.inspect_image(&self.tag(tag)).await;
        found.ok().and_then(|image| image.id)
    }

    fn sent(&self, commit: &Commit) -> Result<Vec<(String, u32, String)>, BuildError> {
        listed(&read(&self.mirror(), commit, &self.settings)?)
    }

    pub fn paths(&self, commit: &Commit) -> Vec<String> {
        let sent = self.sent(commit).unwrap();
        let mut paths: Vec<_> = sent.into_iter().map(|(path, ..)| path).collect();
        paths.sort();
        paths
    }

    pub async fn clean_up(self) {
        let label = format!("cutover.image.agent={}", self.agent);
        let options = bollard::query_parameters::ListImagesOptions {
            filters: Some(HashMap::from([("label".to_owned(), vec![label])])),
            ..Default::default()
        };
        for image in self.docker.list_images(Some(options)).await.unwrap() {
            let force = RemoveImageOptions {
                force: true,
                ..Default::default()
            };
            let _ = self.docker.remove_image(&image.id, Some(force), None).await;
        }
    }
}

/// A commit that is nowhere.
pub fn lost() -> Oid {
    "0123456789abcdef0123456789abcdef01234567".parse().unwrap()
}

/// Reads a context as a build does.
pub fn read(
    mirror: &Mirror,
    commit: &Commit,
    settings: &config::Build,
) -> Result<Context, BuildError> {
    read_until(&CancellationToken::new(), mirror, commit, settings)
}

fn read_until(
    cancel: &CancellationToken,
    mirror: &Mirror,
    commit: &Commit,
    settings: &config::Build,
) -> Result<Context, BuildError> {
    let fetching = Fetching {
        log: &|_| {},
        cancel,
        deadline: Instant::now() + Duration::from_secs(60),
    };
    Context::read(mirror, commit, settings, &fetching)
}

/// What the context holds, as `tar` lists it: path, mode, and content or target.
pub fn listed(context: &Context) -> Result<Vec<(String, u32, String)>, BuildError> {
    let mut bytes = Vec::new();
    context.send(&mut bytes)?;
    let mut archive = tar::Archive::new(bytes.as_slice());
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mode = entry.header().mode().unwrap();
        let link = entry.link_name().unwrap();
        let content = match link {
            Some(target) => target.display().to_string(),
            None => std::io::read_to_string(&mut entry).unwrap(),
        };
        (path, mode, content)
    });
    Ok(entries.collect())
}

pub const SCRATCH: &str = "FROM scratch\nCOPY . /app/\nCMD [\"/app/run\"]\n";

#[tokio::test]
async fn the_dockerfile_s_own_labels_count() {
    let scene = Scene::new().await;
    let label = "FROM scratch\nLABEL org.opencontainers.image.version=2.3\nCOPY . /app/\n";
    let commit = scene.commit(&[("Dockerfile", Text(label))]);
    scene.build(&commit, "one").await.unwrap();
    let image = scene.docker.inspect_image(&scene.tag("one")).await.unwrap();
    let labels = image.config.unwrap().labels.unwrap();
    assert_eq!(labels["org.opencontainers.image.version"], "2.3");
    let revision = &labels["org.opencontainers.image.revision"];
    assert_eq!(revision, commit.id.as_str());
    scene.clean_up().await;
}

#[tokio::test]
async fn a_commit_becomes_a_tagged_and_labelled_image() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        ("run", Program("#!")),
        ("deep/er/file", Text("text")),
    ]);
    let built = scene.build(&commit, "one").await.unwrap();
    assert!(built.reused.is_none());
    let image = scene.docker.inspect_image(&scene.tag("one")).await.unwrap();
    assert_eq!(image.id.as_deref(), Some(built.image_id.as_str()));
    assert!(built.image_id.starts_with("sha256:"));
    let labels = image.config.unwrap().labels.unwrap();
    assert_eq!(labels["cutover.image.agent"], scene.agent.as_str());
    let oci = |name: &str| labels[&format!("org.opencontainers.image.{name}")].as_str();
    assert_eq!(oci("revision"), commit.id.as_str());
    assert_eq!(
        (oci("ref.name"), oci("version")),
        ("main", commit.id.short())
    );
    assert!(oci("created").ends_with('Z'));
    let source = labels.get("org.opencontainers.image.source");
    assert_eq!(source, None, "a folder of this machine");
    let twelve = scene.image_of(commit.id.short()).await;
    assert_eq!(twelve.as_deref(), Some(built.image_id.as_str()));
    let log = scene.log();
    assert!(log.contains("COPY . /app/"), "{log}");
    assert!(log.contains("DONE"), "{log}");
    scene.clean_up().await;
}

#[tokio::test]
async fn a_step_of_a_long_dockerfile_that_fails_is_told_as_any_other() {
    let scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    let long = "# What comes next was written by a program.\n".repeat(4000);
    let dockerfile = format!(
        "FROM {base}\n{long}RUN echo \"${{{}}}\" && exit 7\n",
        "x".repeat(30_000)
    );
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert!(error.to_string().contains("exit code: 7"), "{error}");
    scene.clean_up().await;
}

/// The file of this digest in an image as `docker save` writes it.
fn blob(archive: &[u8], digest: &str) -> serde_json::Value {
    let wanted = format!("blobs/{}", digest.replace(':', "/"));
    let mut archive = tar::Archive::new(archive);
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let found = entries.find(|entry| entry.path_bytes() == wanted.as_bytes());
    serde_json::from_reader(found.expect(&wanted)).unwrap()
}

async fn can_attest(scene: &Scene) -> bool {
    let info = scene.docker.info().await.unwrap();
    format!("{:?}", info.driver_status).contains("io.containerd.snapshotter")
}

/// What is kept with an image below this digest.
async fn said_with(scene: &Scene, tag: &str, digest: &str) -> Vec<serde_json::Value> {
    let saved = scene.docker.export_image(&scene.tag(tag));
    let saved = saved.map(Result::unwrap).collect::<Vec<_>>().await.concat();
    let manifest = blob(&saved, digest);
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|it| blob(&saved, it["digest"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn an_image_lists_what_it_contains_where_docker_can_keep_that() {
    let mut scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    let dockerfile = format!("FROM {base}\nCOPY scan /scan\nENTRYPOINT [\"/scan\"]\n");
    const SCAN: &str = r#"#!/bin/sh
echo '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document",
"predicate":{"spdxVersion":"SPDX-2.3","name":"'"$(cat $BUILDKIT_SCAN_SOURCE/app/mark)"'"}}' \
    > $BUILDKIT_SCAN_DESTINATION/list.spdx.json
"#;
    let scanner = scene.commit(&[("Dockerfile", Text(&dockerfile)), ("scan", Program(SCAN))]);
    scene.build(&scanner, "scanner").await.unwrap();
    let commit = scene.commit(&[("Dockerfile", Text(SCRATCH)), ("mark", Text("here it is"))]);
    let plain = scene.build(&commit, "one").await.unwrap();
    scene.settings.sbom = Some(scene.tag("scanner").parse().unwrap());
    let built = scene.build(&commit, "two").await.unwrap();
    assert_ne!(built.cache_key, plain.cache_key);
    match can_attest(&scene).await {
        false => assert!(
            scene.log().contains("`build.sbom` does nothing here"),
            "{}",
            scene.log()
        ),
        true => {
            let said = said_with(&scene, "two", &built.provenance.attestation.unwrap()).await;
            let of = |it: &&serde_json::Value| it["predicateType"] == "https://spdx.dev/Document";
            let list = said.iter().find(of).unwrap();
            assert_eq!(list["predicate"]["name"], "here it is");
        }
    }
    scene.clean_up().await;
}

#[tokio::test]
async fn an_image_says_how_it_was_built_where_docker_can_keep_that() {
    let mut scene = Scene::new().await;
    let word = "nobody is told";
    let arg = Value::Text(word.into());
    scene.settings.args.insert("WORD".into(), arg);
    let dockerfile = "FROM scratch\nARG WORD\nCOPY . /app/\n";
    let commit = scene.commit(&[("Dockerfile", Text(dockerfile))]);
    let built = scene.build(&commit, "one").await.unwrap();
    let attestation = built.provenance.attestation;
    assert_eq!(
        attestation.is_some(),
        can_attest(&scene).await,
        "{}",
        scene.log()
    );
    if let Some(digest) = attestation {
        let said = said_with(&scene, "one", &digest).await;
        let kind = said[0]["predicateType"].as_str().unwrap();
        assert!(kind.starts_with("https://slsa.dev/provenance/"), "{said:?}");
        assert!(!said[0].to_string().contains(word), "{said:?}");
    }
    // The same files are the same image all the same.
    let again = scene.build(&commit, "two").await.unwrap();
    assert_eq!(again.image_id, built.image_id);
    scene.clean_up().await;
}

#[tokio::test]
async fn a_build_that_is_repeated_leaves_one_image() {
    let mut scene = Scene::new().await;
    scene.no_cache = true;
    let commit = scene.commit(&[("Dockerfile", Text(SCRATCH))]);
    let first = scene.build(&commit, "one").await.unwrap();
    let again = scene.build(&commit, "one").await.unwrap();
    assert_ne!(again.image_id, first.image_id);
    let left = scene.docker.inspect_image(&first.image_id).await;
    let gone = matches!(
        left,
        Err(DockerError::DockerResponseServerError {
            status_code: 404,
            ..
        })
    );
    assert!(gone, "{left:?}");

    // Where all steps were cached, the first attempt's image is an earlier deployment's too.
    let earlier = DeploymentId::new().to_string();
    let name = format!("cutover/{}", scene.app);
    let also = TagImageOptionsBuilder::new().repo(&name).tag(&earlier);
    let tagged = (scene.docker).tag_image(&again.image_id, Some(also.build()));
    tagged.await.unwrap();
    let third = scene.build(&commit, "one").await.unwrap();
    assert_ne!(third.image_id, again.image_id);
    assert_eq!(scene.image_of(&earlier).await, Some(again.image_id));
    scene.clean_up().await;
}

#[tokio::test]
async fn a_known_fault_is_answered_with_the_one_thing_to_do() {
    let scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    let shell = format!("FROM {base}\n");
    for (name, lines, expected) in [
        (
            "frm",
            "FRM scratch\n",
            &["correct the Dockerfile's line"][..],
        ),
        (
            "no-shell",
            "FROM scratch\nCOPY Dockerfile /x\nRUN make\n",
            &["has no shell"],
        ),
        (
            "here",
            "{shell}RUN <<EOF\necho a\nEOF\n",
            &["here-documents"],
        ),
        (
            "link",
            "FROM scratch\nCOPY --link Dockerfile /x\n",
            &["too old for the flag"],
        ),
        (
            "secret",
            "{shell}RUN --mount=type=secret,id=npmrc cat /run/secrets/npmrc\n",
            &["give the build the secret"],
        ),
        (
            "required",
            "{shell}RUN --mount=type=secret,id=npmrc,required=true cat /run/secrets/npmrc\n",
            &["give the build the secret"],
        ),
        (
            "ssh",
            "{shell}RUN --mount=type=ssh,required=true cat /nope\n",
            &["give the build the key"],
        ),
        (
            "base",
            "FROM cutover.invalid/nowhere:1\nCOPY Dockerfile /x\n",
            &["cannot be reached"],
        ),
        (
            "syntax",
            "# syntax=cutover.invalid/docker/dockerfile:1\nFROM scratch\nCOPY Dockerfile /x\n",
            &["remove the line", "frontends = "],
        ),
        (
            "network",
            "{shell}RUN busybox wget http://cutover.invalid/\n",
            &["could not reach the network"],
        ),
    ] {
        let dockerfile = lines.replace("{shell}", &shell);
        let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
        match scene.build(&commit, name).await {
            Err(error) => {
                let said = format!("{error}; {}", error.hint());
                let all = expected.iter().all(|words| said.contains(words));
                assert!(all, "{name}: {said}\n{:#?}", error.log_tail());
            }
            // A newer engine knows these.
            Ok(_) => assert!(["here", "link"].contains(&name), "{name}"),
        }
    }
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

#[tokio::test]
async fn a_base_image_that_is_renewed_under_its_name_is_built_on_anew() {
    let scene = Scene::new().await;
    let base = format!("cutover-test-base-{}", scene.agent);
    let renew = async |text: &str| {
        let commit = scene.commit(&[("Dockerfile", Text(SCRATCH)), ("base", Text(text))]);
        let built = scene.build(&commit, text).await.unwrap();
        let options = bollard::query_parameters::TagImageOptions {
            repo: Some(base.clone()),
            tag: Some("latest".into()),
        };
        let tagged = scene.docker.tag_image(&built.image_id, Some(options));
        tagged.await.unwrap();
    };
    for dockerfile in [
        format!("ARG FROM={base}\nFROM ${{FROM}}:latest\nCOPY own /own\n"),
        format!("FROM scratch\nCOPY --from={base} /app /app\nCMD [\"/app/run\"]\n"),
    ] {
        let own = dockerfile.len().to_string();
        renew(&format!("old{own}")).await;
        let files = [("Dockerfile", Text(&dockerfile)), ("own", Text(&own))];
        let commit = scene.commit(&files);
        let first = scene.build(&commit, &format!("one{own}")).await.unwrap();
        let again = scene.build(&commit, &format!("two{own}")).await.unwrap();
        assert_eq!(again.reused.unwrap().id, first.image_id);
        renew(&format!("new{own}")).await;
        let anew = scene.build(&commit, &format!("three{own}")).await.unwrap();
        assert!(anew.reused.is_none() && anew.image_id != first.image_id);
    }
    scene.clean_up().await;
}

#[tokio::test]
async fn the_same_content_is_not_built_again_and_no_cache_builds_anew() {
    let mut scene = Scene::new().await;
    let files = || {
        [
            ("Dockerfile", Text(SCRATCH)),
            ("a", Text("a")),
            (".dockerignore", Text("*.md")),
        ]
    };
    let first = scene.commit(&files());
    let built = scene.build(&first, "one").await.unwrap();
    // Another commit of the same tree, and one whose change is not sent to the builder.
    let second = scene.commit(&files());
    assert_ne!(first.id, second.id);
    let again = scene.build(&second, "two").await.unwrap();
    assert_eq!(
        (again.reused.is_some(), &again.image_id),
        (true, &built.image_id)
    );
    let mut with_readme = files().into_iter().collect::<Vec<_>>();
    with_readme.push(("README.md", Text("changed")));
    let third = scene.commit(&with_readme);
    let again = scene.build(&third, "three").await.unwrap();
    assert_eq!(
        (again.reused.is_some(), &again.image_id),
        (true, &built.image_id)
    );
    for tag in ["one", "two", "three", first.id.short(), second.id.short()] {
        assert_eq!(
            scene.image_of(tag).await.as_ref(),
            Some(&built.image_id),
            "{tag}"
        );
    }
    // Other settings are another image.
    scene
        .settings
        .args
        .insert("X".into(), Value::Text("1".into()));
    let other = scene.build(&third, "four").await.unwrap();
    assert!(other.reused.is_none());
    scene.settings.args.clear();
    scene.no_cache = true;
    let anew = scene.build(&second, "five").await.unwrap();
    assert!(anew.reused.is_none());
    // The registries have nothing to say about it.
    (scene.no_cache, scene.pull) = (false, Pull::Always);
    let pulled = scene.build(&second, "six").await.unwrap();
    assert_eq!(pulled.reused.unwrap().id, anew.image_id);
    // The first image is still there under its own tag.
    assert_eq!(scene.image_of("one").await, Some(built.image_id));
    scene.clean_up().await;
}

#[tokio::test]
async fn a_base_of_the_platform_is_known_and_what_another_stage_needs_does_not_matter() {
    let mut scene = Scene::new().await;
    let mark = ("mark", Text("one"));
    let base = scene.commit(&[("Dockerfile", Text(SCRATCH)), mark]);
    scene.build(&base, "base").await.unwrap();
    let arch = scene.docker.version().await.unwrap().arch.unwrap();
    let name = format!("cutover/{}", scene.app);
    let options = TagImageOptionsBuilder::new()
        .repo(&name)
        .tag(&format!("base-{arch}"))
        .build();
    scene
        .docker
        .tag_image(&scene.tag("base"), Some(options))
        .await
        .unwrap();

    let dockerfile = format!(
        "FROM nowhere.invalid/x${{TARGETSTAGE}} AS other\n\
         FROM {name}:base-${{TARGETARCH}}${{TARGETVARIANT}} AS run\nCOPY mark /\n"
    );
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile)), ("mark", Text("two"))]);
    scene.settings.target = Some("run".into());
    scene.pull = Pull::Never;
    let first = scene.build(&commit, "one").await.unwrap();
    let again = scene.build(&commit, "two").await.unwrap();
    assert_eq!(again.reused.unwrap().id, first.image_id);
    scene.settings.target = Some("other".into());
    let error = scene.build(&commit, "three").await.unwrap_err();
    assert!(matches!(error, BuildError::UnknownBase), "{error}");
    scene.clean_up().await;
}

#[tokio::test]
async fn unchanged_folders_come_from_the_builders_cache() {
    let scene = Scene::new().await;
    const DOCKERFILE: &str = "FROM scratch\nCOPY lib /lib/\nCOPY app /app/\n";
    fn files(text: &str) -> [(&str, File<'_>); 3] {
        [
            ("Dockerfile", Text(DOCKERFILE)),
            ("lib/big", Text("library")),
            ("app/main", Text(text)),
        ]
    }
    scene
        .build(&scene.commit(&files("one")), "one")
        .await
        .unwrap();
    std::fs::remove_file(scene.log_path()).unwrap();
    // Not what an earlier run of this test has left in the builder's cache.
    let fresh = scene.agent.to_string();
    scene
        .build(&scene.commit(&files(&fresh)), "two")
        .await
        .unwrap();
    let log = scene.log();
    let number = |text: &str| {
        let line = log.lines().find(|line| line.contains(text)).unwrap();
        line.split(' ').next().unwrap().to_owned()
    };
    assert!(
        log.contains(&format!("{} CACHED", number("COPY lib"))),
        "{log}"
    );
    assert!(
        log.contains(&format!("{} DONE", number("COPY app"))),
        "{log}"
    );
    scene.clean_up().await;
}

#[tokio::test]
async fn only_the_context_folder_is_sent_with_modes_and_links_as_they_are() {
    let mut scene = Scene::new().await;
    scene.settings.context = "./api/".into();
    // Below the context only.
    scene.settings.dockerfile = Some("docker/Prod".into());
    let long = format!("{}/name", ["long"; 40].join("/"));
    let commit = scene.commit(&[
        ("other/file", Text("not sent")),
        ("api/docker/Prod", Text(SCRATCH)),
        ("api/run", Program("#!")),
        ("api/link", Link("docker/../run")),
        ("api/dangling", Link("gone")),
        (&format!("api/{long}"), Text("deep")),
        ("api/ünï", Text("")),
    ]);
    let sent = scene.sent(&commit).unwrap();
    let find = |path: &str| {
        let found = sent
            .iter()
            .find(|(name, ..)| name.trim_end_matches('/') == path);
        let (_, mode, content) = found.unwrap_or_else(|| panic!("{path} in {sent:?}"));
        (*mode, content.as_str())
    };
    assert_eq!(find("run"), (0o755, "#!"));
    assert_eq!(find("docker/Prod"), (0o644, SCRATCH));
    assert_eq!(find("docker").0, 0o755);
    assert_eq!(find("link").1, "docker/../run");
    assert_eq!(find("dangling").1, "gone");
    assert_eq!(find(&long).1, "deep");
    assert_eq!(find("ünï").1, "");
    assert!(!sent.iter().any(|(path, ..)| path.contains("other")));
    scene.build(&commit, "one").await.unwrap();
    scene.clean_up().await;
}

#[tokio::test]
async fn dockerignore_is_honoured_also_for_the_dockerfile_and_itself() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".dockerignore", Text("*\n!src\nsrc/*.tmp\n!docs/keep/*\n")),
        ("a", Text("")),
        ("src/b", Text("")),
        ("src/x.tmp", Text("")),
        ("docs/keep/c", Text("")),
        ("docs/d", Text("")),
        // What is not sent may be anything.
        ("out", Link("/etc/passwd")),
        ("sub", Submodule(lost())),
    ]);
    let expected = ["docs", "docs/keep", "docs/keep/c", "src", "src/b"];
    assert_eq!(scene.paths(&commit), expected);
    scene.build(&commit, "one").await.unwrap();
    // One that is named after the Dockerfile goes before it.
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".dockerignore", Text("*")),
        ("Dockerfile.dockerignore", Text("a\nDockerfile*")),
        ("a", Text("")),
        ("b", Text("")),
    ]);
    assert_eq!(scene.paths(&commit), [".dockerignore", "b"]);
    scene.build(&commit, "two").await.unwrap();
    scene.clean_up().await;
}

#[tokio::test]
async fn what_cannot_be_built_is_refused_before_docker_is_asked() {
    let dockerfile = || ("Dockerfile", Text(SCRATCH));
    // Context, Dockerfile, the commit's files, and what the error says.
    type Case<'a> = (&'a str, &'a str, Vec<(&'a str, File<'a>)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (
            ".",
            "Dockerfile",
            vec![("x", Text(""))],
            "there is no `Dockerfile`",
        ),
        (
            ".",
            "Dockerfile",
            vec![("Dockerfile/x", Text(""))],
            "is not a file",
        ),
        (".", "../Dockerfile", vec![dockerfile()], "leads out"),
        ("../x", "Dockerfile", vec![dockerfile()], "leads out"),
        ("/etc", "Dockerfile", vec![dockerfile()], "leads out"),
        ("gone", "Dockerfile", vec![dockerfile()], "no folder `gone`"),
        (
            "Dockerfile",
            "Dockerfile",
            vec![dockerfile()],
            "no folder `Dockerfile`",
        ),
        (
            ".",
            "Dockerfile",
            vec![("Dockerfile", Link("../x"))],
            "link out of the repository, to `../x`",
        ),
        (
            ".",
            "Dockerfile",
            vec![("Dockerfile", Link("a")), ("a", Link("Dockerfile"))],
            "link out of the repository",
        ),
        (
            ".",
            "Dockerfile",
            vec![dockerfile(), (".dockerignore", Link("/etc/passwd"))],
            "link out of the repository, to `/etc/passwd`",
        ),
        (
            ".",
            "Dockerfile",
            vec![dockerfile(), ("lib/sub", Submodule(lost()))],
            "the submodule `lib/sub` is not fetched: its address is not in .gitmodules",
        ),
        (
            ".",
            "Dockerfile",
            vec![dockerfile(), (".dockerignore", Text("a\n[\n"))],
            "line 2",
        ),
    ];
    for (context, name, files, expected) in cases {
        let mut scene = Scene::new().await;
        scene.settings.context = context.into();
        scene.settings.dockerfile = Some(name.into());
        let commit = scene.commit(&files);
        let error = scene.build(&commit, "one").await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert!(!error.hint().is_empty());
        assert_eq!(scene.image_of("one").await, None);
    }
}

/// Ten trees of ten entries each, every one the tree below: 10^10 paths behind an ignore file.
#[tokio::test]
async fn a_tree_bomb_behind_an_ignore_file_is_refused_in_time() {
    let scene = Scene::new().await;
    let mut below = scene.origin.treebuilder(None).unwrap().write().unwrap();
    for _ in 0..10 {
        let mut tree = scene.origin.treebuilder(None).unwrap();
        for name in 0..10 {
            let name = name.to_string();
            tree.insert(name, below, 0o040000).unwrap();
        }
        below = tree.write().unwrap();
    }
    let commit = scene.commit_with(
        &[
            ("Dockerfile", Text(SCRATCH)),
            (".dockerignore", Text("bomb\n!bomb/none\n")),
        ],
        Some(("bomb", below)),
    );
    let begun = Instant::now();
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert_eq!(error.code(), "context_too_large", "{error}");

    let stop = CancellationToken::new();
    stop.cancel();
    let (mirror, settings) = (scene.mirror(), &scene.settings);
    let stopped = read_until(&stop, &mirror, &commit, settings);
    assert!(matches!(stopped, Err(BuildError::Cancelled)));
    assert!(
        begun.elapsed() < Duration::from_secs(60),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_dockerfile_that_docker_refuses_says_why() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[("Dockerfile", Text("FROM scratch\nCOPY missing /\n"))]);
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert!(matches!(error, BuildError::Failed { .. }), "{error:?}");
    assert!(error.to_string().contains("COPY missing"), "{error}");
    let commit = scene.commit(&[("Dockerfile", Text("NONSENSE\n"))]);
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert!(
        error
            .to_string()
            .to_lowercase()
            .contains("unknown instruction"),
        "{error}"
    );
    // A base image that cannot be had, and a registry behind which nobody listens.
    let commit = scene.commit(&[("Dockerfile", Text("FROM 127.0.0.1:1/nowhere:1\n"))]);
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert!(
        error.to_string().contains("127.0.0.1:1/nowhere:1"),
        "{error}"
    );
    println!("{error}");
    scene.clean_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_lost_a_file_says_so_and_is_made_again() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[("Dockerfile", Text(SCRATCH)), ("a", Text("a"))]);
    let address = remote::http(scene.folder.path(), None).await;
    let folder = scene.folder.path().join("served.git");
    let repo = Repo::Http(format!("http://{address}/origin.git"));
    let mirror = Mirror::new(folder.clone(), repo, Source::default());
    let fetch = || {
        let far = Instant::now() + Duration::from_secs(30);
        let want = Revision::Branch("main".into());
        let fetch = || mirror.fetch(&want, &|_| {}, &CancellationToken::new(), far);
        tokio::task::block_in_place(fetch).unwrap();
    };
    fetch();
    std::fs::remove_dir_all(folder.join("objects/pack")).unwrap();
    let read = || read(&mirror, &commit, &scene.settings);
    let error = read().err().unwrap();
    assert_eq!(error.code(), "mirror_damaged", "{error}");
    fetch();
    assert!(read().is_ok());
}

#[tokio::test]
async fn a_repository_that_lost_a_file_says_so() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[("Dockerfile", Text(SCRATCH)), ("a", Text("lost"))]);
    let lost = scene.origin.blob(b"lost").unwrap().to_string();
    let objects = scene.folder.path().join("origin.git/objects");
    std::fs::remove_file(objects.join(&lost[..2]).join(&lost[2..])).unwrap();
    let error = scene.sent(&commit).unwrap_err();
    assert_eq!(error.code(), "repository_damaged", "{error}");
}

#[tokio::test]
async fn links_that_nobody_follows_are_sent_as_they_are() {
    let scene = Scene::new().await;
    let links = [
        ("app.log", "/dev/stdout"),
        ("public/storage", "/var/www/storage"),
        ("public/up", "../../../x"),
        ("loop", "loop"),
        ("odd", "./a//b/"),
        ("long", LONG),
    ];
    const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/\
                        bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    let mut files = vec![("Dockerfile", Text(SCRATCH))];
    files.extend(links.map(|(path, target)| (path, Link(target))));
    let commit = scene.commit(&files);
    let sent = scene.sent(&commit).unwrap();
    for (path, target) in links {
        let found = sent.iter().find(|(name, ..)| name == path).unwrap();
        assert_eq!(found.2, target, "{path}");
    }
    scene.build(&commit, "one").await.unwrap();
    scene.clean_up().await;
}

#[tokio::test]
async fn a_dockerfile_behind_a_link_is_found_also_where_it_is_ignored() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[
        ("Dockerfile", Link("docker/app")),
        ("docker/app", Text(SCRATCH)),
        (".dockerignore", Link("docker/ignored")),
        ("docker/ignored", Text("docker\nx\n")),
        ("x", Text("x")),
    ]);
    assert_eq!(scene.paths(&commit), [".dockerignore", "Dockerfile"]);
    scene.build(&commit, "one").await.unwrap();
    scene.clean_up().await;
}

#[tokio::test]
async fn a_large_file_is_sent_whole_from_wherever_git_keeps_it() {
    let scene = Scene::new().await;
    // It does not compress, so that its pack has it whole.
    let mut large = vec![0u8; 3 << 20];
    getrandom::fill(&mut large).unwrap();
    let large: String = large.iter().map(|byte| char::from(byte & 0x7f)).collect();
    let commit = scene.commit(&[("Dockerfile", Text(SCRATCH)), ("large", Text(&large))]);
    let content = || {
        let sent = scene.sent(&commit)?;
        let found = sent.into_iter().find(|(name, ..)| name == "large");
        Ok::<_, BuildError>(found.unwrap().2)
    };
    assert!(content().unwrap() == large, "loose");
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        git.arg("-C").arg(scene.folder.path().join("origin.git"));
        assert!(git.args(args).status().unwrap().success());
    };
    git(&["repack", "-adq"]);
    assert!(content().unwrap() == large, "packed");
    let borrower = scene.folder.path().join("borrower.git");
    std::fs::rename(scene.folder.path().join("origin.git"), &borrower).unwrap();
    Repository::init_bare(scene.folder.path().join("origin.git")).unwrap();
    let origin = scene.folder.path().join("origin.git");
    std::fs::write(
        origin.join("objects/info/alternates"),
        format!("{}\n", borrower.join("objects").display()),
    )
    .unwrap();
    assert!(content().unwrap() == large, "borrowed");
    // One byte in its middle.
    let packs = std::fs::read_dir(borrower.join("objects/pack")).unwrap();
    let pack = packs.map(|entry| entry.unwrap().path());
    let pack = pack
        .into_iter()
        .find(|path| path.extension().unwrap() == "pack")
        .unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let error = content().unwrap_err();
    assert_eq!(error.code(), "repository_damaged", "{error}");
}

/// A base image with a shell, made of Debian's static busybox. `None`, said aloud, where it is not
/// installed.
pub async fn base(scene: &Scene) -> Option<String> {
    base_with(scene, &[]).await
}

/// The same with programs of this machine and the libraries that they need.
pub async fn base_with(scene: &Scene, programs: &[&str]) -> Option<String> {
    let busybox = Path::new("/bin/busybox");
    if !busybox.exists() {
        tool::skip("RUN steps need /bin/busybox (apt-get install busybox-static)");
        return None;
    }
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_path_with_name(busybox, "bin/busybox")
        .unwrap();
    for program in programs {
        let Ok(ldd) = std::process::Command::new("ldd").arg(program).output() else {
            tool::skip("programs with libraries need `ldd`");
            return None;
        };
        let text = String::from_utf8_lossy(&ldd.stdout).into_owned();
        let libraries = text.split_whitespace().filter(|word| word.starts_with('/'));
        for path in libraries.chain([*program]) {
            let real = std::fs::canonicalize(path).unwrap();
            archive
                .append_path_with_name(real, path.trim_start_matches('/'))
                .unwrap();
        }
    }
    for name in ["sh", "sleep", "echo", "seq", "cat", "sha256sum"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        (archive.append_link(&mut header, format!("bin/{name}"), "busybox")).unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    let repo = format!("cutover/{}-base", scene.app);
    let options = (CreateImageOptionsBuilder::default()
        .from_src("-")
        .repo(&repo)
        .tag("1"))
    .build();
    let body = bollard::body_full(bytes.into());
    let mut stream = Box::pin(scene.docker.create_image(Some(options), Some(body), None));
    while let Some(message) = stream.next().await {
        message.unwrap();
    }
    Some(format!("{repo}:1"))
}

pub async fn remove_base(scene: &Scene, base: &str) {
    let _ = (scene.docker)
        .remove_image(base, None::<RemoveImageOptions>, None)
        .await;
}

#[tokio::test]
async fn the_output_of_steps_is_logged_and_a_failing_one_is_in_the_error() {
    let scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    let dockerfile = format!(
        "FROM {base}\nARG WHO\nRUN echo hello $WHO\nRUN seq 1 30; printf '\\033[31mred\\033[0m\\n'; printf 'half'; exit 3\n"
    );
    let mut scene = scene;
    let who = Value::Text("Ann".into());
    scene.settings.args.insert("WHO".into(), who);
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
    let error = scene.build(&commit, "one").await.unwrap_err();
    let log = scene.log();
    assert!(log.contains("hello Ann"), "{log}");
    assert!(log.contains("ERROR"), "{log}");
    let BuildError::Failed {
        step,
        message,
        log_tail,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert!(step.contains("seq 1 30"), "{step}");
    assert!(message.contains("exit code: 3"), "{message}");
    assert_eq!(log_tail.len(), 20, "{log_tail:?}");
    let expected = ["30", "red", "half"].map(str::to_owned);
    assert!(log_tail.ends_with(&expected), "{log_tail:?}");
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

/// Whether a process on this machine was started with `mark` among its arguments.
fn runs(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.filter_map(Result::ok).any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.split(|b| *b == 0).any(|arg| arg == mark.as_bytes())
    })
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let far = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < far, "waited 20 s for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn cancelling_and_the_timeout_end_the_step_on_the_engine() {
    let mut scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    // The argument finds the process.
    let mark = (1_000_000 + u64::from(std::process::id())).to_string();
    let dockerfile = format!("FROM {base}\nRUN echo begun; sleep {mark} & sleep {mark}\n");
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
    let cancel = CancellationToken::new();
    let (ended, ()) = tokio::join!(scene.build_until(&commit, "one", &cancel), async {
        until("the step to start", || runs(&mark)).await;
        cancel.cancel();
    });
    assert!(matches!(ended, Err(BuildError::Cancelled)), "{ended:?}");
    until("the step to end", || !runs(&mark)).await;

    // The future is dropped, which the engine sees as it sees a killed agent: the connection ends.
    let build = scene.build(&commit, "one");
    let killed = tokio::time::timeout(Duration::from_secs(20), async {
        tokio::select! {
            ended = build => panic!("{ended:?}"),
            () = until("the step to start", || runs(&mark)) => {}
        }
    });
    killed.await.unwrap();
    until("the step to end", || !runs(&mark)).await;

    scene.settings.timeout = Duration::from_secs(3);
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert!(matches!(error, BuildError::TimedOut { .. }), "{error:?}");
    assert!(
        error.log_tail().iter().any(|line| line.contains("begun")),
        "{error:?}"
    );
    until("the step to end", || !runs(&mark)).await;
    assert_eq!(scene.image_of("one").await, None);
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

fn sockets() -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    (links.filter(|link| link.to_string_lossy().starts_with("socket"))).count()
}

#[test]
fn builds_leave_no_connection_behind() {
    // In a process of its own: the other tests open and close sockets too.
    let test = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "build::count_connections"])
        .output()
        .unwrap();
    assert!(
        test.status.success(),
        "{}",
        String::from_utf8_lossy(&test.stdout)
    );
}

#[tokio::test]
#[ignore = "run by `builds_leave_no_connection_behind`"]
async fn count_connections() {
    let scene = Scene::new().await;
    let before = sockets();
    for text in ["a", "b", "c"] {
        let commit = scene.commit(&[("Dockerfile", Text(SCRATCH)), ("file", Text(text))]);
        scene.build(&commit, text).await.unwrap();
    }
    until("the connections to close", || sockets() <= before).await;
    scene.clean_up().await;
}

/// What [`build::image`] costs beyond the engine's own time. Figures, not a promise:
/// `cargo test --release --test source -- --ignored --nocapture measure`. `FILES` and `MIB` say how much
/// there is in the context besides the line that changes.
#[tokio::test]
#[ignore = "prints figures"]
async fn measure() {
    let scene = Scene::new().await;
    let number = |name: &str, usual| match std::env::var(name) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => usual,
    };
    let names: Vec<String> = (0..number("FILES", 300))
        .map(|i| format!("src/{}/file{i}", i % 20))
        .collect();
    let body = "x".repeat(2000);
    let mut large = vec![0u8; number("MIB", 0) << 20];
    getrandom::fill(&mut large).unwrap();
    let large: String = large.iter().map(|byte| char::from(byte & 0x7f)).collect();
    let commit_of = |text: &str| {
        let mut files: Vec<_> = (names.iter())
            .map(|name| (name.as_str(), Text(&body)))
            .collect();
        files.push(("large", Text(&large)));
        files.extend([("Dockerfile", Text(SCRATCH)), ("line", Text(text))]);
        scene.commit(&files)
    };
    scene.build(&commit_of("0"), "warm").await.unwrap();
    for round in 0..number("ROUNDS", 10) {
        let text = format!("{round} {}", scene.agent);
        let commit = commit_of(&text);
        let start = Instant::now();
        let built = scene.build(&commit, "changed").await.unwrap();
        let changed = start.elapsed();
        assert!(built.reused.is_none());
        let start = Instant::now();
        let built = scene.build(&commit, "same").await.unwrap();
        let same = start.elapsed();
        assert!(built.reused.is_some());
        let start = Instant::now();
        let context = read(&scene.mirror(), &commit, &scene.settings).unwrap();
        let reading = start.elapsed();
        let mut bytes = Vec::new();
        context.send(&mut bytes).unwrap();
        let tar = start.elapsed() - reading;
        // The engine's own time for as much work: the tar is ready, nothing is read, tagged or logged.
        let mut bytes = Vec::new();
        let text = format!("engine {round} {}", scene.agent);
        let other = read(&scene.mirror(), &commit_of(&text), &scene.settings).unwrap();
        other.send(&mut bytes).unwrap();
        let options = bollard::query_parameters::BuildImageOptionsBuilder::default()
            .t("cutover/measure:1")
            .session(&format!("measure-{round}"))
            .version(bollard::query_parameters::BuilderVersion::BuilderBuildKit)
            .build();
        let start = Instant::now();
        let body = bollard::body_full(bytes.into());
        let mut stream = Box::pin(scene.docker.build_image(options, None, Some(body)));
        while let Some(message) = stream.next().await {
            message.unwrap();
        }
        let engine = start.elapsed();
        println!(
            "changed {changed:?}, engine alone {engine:?}, same {same:?}, read {reading:?}, tar {tar:?}"
        );
    }
    let force = RemoveImageOptions {
        force: true,
        ..Default::default()
    };
    let _ = scene
        .docker
        .remove_image("cutover/measure:1", Some(force), None)
        .await;
    scene.clean_up().await;
}
