//! What a build gets besides the context: its Dockerfile, arguments, secrets and settings.

use std::collections::BTreeMap;
use std::io::Read;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{ListImagesOptions, RemoveContainerOptions};
use cutover::build::BuildError;
use cutover::config::{Frontends, Named, Secret, Value};
use futures_util::StreamExt;

use crate::build::File::Text;
use crate::build::{SCRATCH, Scene, base, base_with, remove_base};

/// The files of an image, in a container that never runs.
async fn files_of(scene: &Scene, image: &str) -> BTreeMap<String, String> {
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["/none".to_owned()]),
        ..Default::default()
    };
    let made = scene.docker.create_container(None, body).await.unwrap();
    let mut bytes = Vec::new();
    let mut export = Box::pin(scene.docker.export_container(&made.id));
    while let Some(chunk) = export.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    drop(export);
    let force = RemoveContainerOptions {
        force: true,
        ..Default::default()
    };
    (scene.docker.remove_container(&made.id, Some(force)).await).unwrap();
    let mut all = BTreeMap::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).unwrap();
        all.insert(path, String::from_utf8_lossy(&text).into_owned());
    }
    all
}

fn in_app(files: &BTreeMap<String, String>) -> Vec<&str> {
    let paths = files.keys().filter_map(|path| path.strip_prefix("app/"));
    paths.filter(|path| !path.is_empty()).collect()
}

#[tokio::test]
async fn an_ignored_dockerfile_is_not_in_the_image() {
    let scene = Scene::new().await;
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".dockerignore", Text("Dockerfile\n.dockerignore\nsecret\n")),
        ("a", Text("1")),
        ("a-b/c", Text("2")),
        ("secret", Text("3")),
    ]);
    let built = scene.build(&commit, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    assert_eq!(in_app(&found), ["a", "a-b/", "a-b/c"]);
    // Only what has changed is sent again, and what is gone is gone.
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".dockerignore", Text("Dockerfile\n")),
        ("a", Text("4")),
        ("secret", Text("3")),
    ]);
    let built = scene.build(&commit, "two").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    assert_eq!(in_app(&found), [".dockerignore", "a", "secret"]);
    assert_eq!(found["app/a"], "4");
    scene.clean_up().await;
}

#[tokio::test]
async fn only_what_has_changed_is_sent_again() {
    let scene = Scene::new().await;
    let mut large = vec![0u8; 3 << 20];
    getrandom::fill(&mut large).unwrap();
    let large: String = large.iter().map(|byte| char::from(byte & 0x7f)).collect();
    let mut sent_much = Vec::new();
    for small in ["one", "two"] {
        let _ = std::fs::remove_file(scene.log_path());
        let commit = scene.commit(&[
            ("Dockerfile", Text(SCRATCH)),
            ("large", Text(&large)),
            ("small", Text(small)),
        ]);
        let built = scene.build(&commit, small).await.unwrap();
        let found = files_of(&scene, &built.image_id).await;
        assert_eq!(found["app/small"], small);
        assert_eq!(found["app/large"].len(), large.len());
        let log = scene.log();
        let mut lines = log
            .lines()
            .filter(|line| line.contains("transferring context"));
        sent_much.push(lines.any(|line| line.contains("MB")));
    }
    assert_eq!(sent_much, [true, false]);
    scene.clean_up().await;
}

#[tokio::test]
async fn a_dockerfile_may_be_anywhere_in_the_repository() {
    let mut scene = Scene::new().await;
    scene.settings.context = "apps/api".into();
    scene.settings.dockerfile = Some("docker/api.Dockerfile".into());
    let other = "FROM scratch\nCOPY . /other/\nCMD [\"x\"]\n";
    let commit = scene.commit(&[
        ("docker/api.Dockerfile", Text(SCRATCH)),
        ("docker/api.Dockerfile.dockerignore", Text("b\n")),
        ("apps/api/docker/api.Dockerfile", Text(other)),
        ("apps/api/.dockerignore", Text("a\n")),
        ("apps/api/a", Text("")),
        ("apps/api/b", Text("")),
        ("elsewhere", Text("")),
    ]);
    let built = scene.build(&commit, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    let expected = [".dockerignore", "a", "docker/", "docker/api.Dockerfile"];
    assert_eq!(in_app(&found), expected);
    // One that is not configured is the context's own.
    scene.settings.dockerfile = None;
    let commit = scene.commit(&[
        ("Dockerfile", Text(other)),
        ("apps/api/Dockerfile", Text(SCRATCH)),
    ]);
    let built = scene.build(&commit, "two").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    assert_eq!(in_app(&found), ["Dockerfile"]);
    // Docker takes this name too.
    let commit = scene.commit(&[
        ("Dockerfile", Text(other)),
        ("apps/api/dockerfile", Text(SCRATCH)),
    ]);
    let built = scene.build(&commit, "three").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    assert_eq!(in_app(&found), ["dockerfile"]);
    scene.clean_up().await;
}

#[tokio::test]
async fn the_stage_and_the_arguments_are_those_of_the_settings() {
    let mut scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    let folder = scene.folder.path().to_owned();
    std::fs::write(folder.join("args"), "FILE=file\nBOTH=file\n").unwrap();
    std::fs::write(folder.join("token"), "token\n").unwrap();
    scene.settings.args_file = Some(folder.join("args"));
    let args = [
        ("BOTH", Value::Text("text".into())),
        ("FROM_FILE", Value::From(Secret::File(folder.join("token")))),
    ];
    for (name, value) in args {
        scene.settings.args.insert(name.into(), value);
    }
    scene.settings.target = Some("run".into());
    scene.settings.network = Some("none".into());
    let hosts = [("db.example".to_owned(), "192.0.2.7".to_owned())];
    scene.settings.extra_hosts = hosts.into();
    let dockerfile = format!(
        "FROM {base} AS run\nARG FILE\nARG BOTH\nARG FROM_FILE\nARG SOURCE_COMMIT\nARG SOURCE_BRANCH\n\
         ARG CUTOVER_APP\nARG CUTOVER_COMMIT\nARG CUTOVER_REF\n\
         RUN echo $FILE $BOTH $FROM_FILE $SOURCE_COMMIT $SOURCE_BRANCH > /said; \
         echo $CUTOVER_APP $CUTOVER_COMMIT $CUTOVER_REF >> /said; cat /etc/hosts > /known\n\
         FROM run AS dev\nRUN exit 1\n"
    );
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
    let built = scene.build(&commit, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    let id = &commit.id;
    let expected = format!(
        "file text token {id} main\n{} {id} refs/heads/main\n",
        scene.app
    );
    assert_eq!(found["said"], expected);
    assert!(found["known"].contains("192.0.2.7\tdb.example"));
    // A target that is not there is named.
    scene.settings.target = Some("gone".into());
    let error = scene.build(&commit, "two").await.unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
    // What cannot be read is named before anything is built.
    scene.settings.args_file = Some(folder.join("missing"));
    let error = scene.build(&commit, "three").await.unwrap_err();
    assert_eq!(error.code(), "build_input");
    assert!(error.to_string().contains("`build.args_file`"), "{error}");
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

#[tokio::test]
async fn another_commit_is_another_image_only_if_it_asks_for_it() {
    let scene = Scene::new().await;
    for (arg, reused) in [
        ("OTHER", true),
        ("SOURCE_COMMIT", false),
        ("CUTOVER_COMMIT", false),
    ] {
        let dockerfile = format!("FROM scratch\nARG {arg}\nCOPY a /\nCMD [\"x\"]\n");
        let files = [("Dockerfile", Text(&dockerfile)), ("a", Text(arg))];
        scene.build(&scene.commit(&files), "one").await.unwrap();
        let built = scene.build(&scene.commit(&files), "two").await.unwrap();
        assert_eq!(built.reused.is_some(), reused, "{arg}");
    }
    scene.clean_up().await;
}

#[tokio::test]
async fn secrets_are_mounted_and_nowhere_else() {
    let mut scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    const CANARY: &str = "canary-5f1c0a";
    let path = scene.folder.path().join("npmrc");
    std::fs::write(&path, format!("//npm/:_auth={CANARY}\n")).unwrap();
    let from = Secret::File(path.clone());
    scene.settings.secrets.insert("npmrc".into(), from);
    // Whatever the builder has cached of an earlier run, which prints nothing.
    let anew = &scene.agent;
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=secret,id=npmrc,required=true cat /run/secrets/npmrc; \
         cat /run/secrets/npmrc | sha256sum > /sum; echo {anew}\nCMD [\"x\"]\n"
    );
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
    let built = scene.build(&commit, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    let sum = |text: &str| {
        use sha2::{Digest, Sha256};
        hex::encode(Sha256::digest(text))
    };
    let expected = sum(&format!("//npm/:_auth={CANARY}\n"));
    assert!(found["sum"].starts_with(&expected), "{}", found["sum"]);
    // The image with all its layers, its history and its settings, and the log of a step that prints it.
    let mut image = Vec::new();
    let mut export = Box::pin(scene.docker.export_image(&built.image_id));
    while let Some(chunk) = export.next().await {
        image.extend_from_slice(&chunk.unwrap());
    }
    drop(export);
    let holds = |bytes: &[u8]| memchr::memmem::find(bytes, CANARY.as_bytes()).is_some();
    assert!(!holds(&image));
    assert!(!holds(scene.log().as_bytes()), "{}", scene.log());
    assert!(scene.log().contains("***"), "{}", scene.log());
    assert!(!built.cache_key.contains(CANARY));
    // The same value is the same image, another value is not.
    let again = scene.build(&commit, "two").await.unwrap();
    assert!(again.reused.is_some());
    std::fs::write(&path, "other\n").unwrap();
    let other = scene.build(&commit, "three").await.unwrap();
    assert!(other.reused.is_none());
    // One that is required and not configured says which key to set.
    scene.settings.secrets.clear();
    scene.no_cache = true;
    let error = scene.build(&commit, "four").await.unwrap_err();
    assert!(matches!(error, BuildError::Failed { .. }), "{error:?}");
    assert!(
        error.hint().contains("secrets = {"),
        "{error} {}",
        error.hint()
    );
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

#[tokio::test]
async fn steps_sign_with_the_keys_that_are_configured() {
    let mut scene = Scene::new().await;
    let Some(base) = base_with(&scene, &["/usr/bin/ssh-add"]).await else {
        return;
    };
    let key = scene.folder.path().join("key");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&key)
        .status();
    assert!(made.unwrap().success());
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let public = public.split(' ').nth(1).unwrap();
    // Readable by all, as what a container's secrets are mounted with.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(&key, open).unwrap();
    let anew = &scene.agent;
    let dockerfile = format!(
        "FROM {base}\nRUN --mount=type=ssh,id=deploy,required=true ssh-add -L > /keys; echo {anew}\n\
         RUN --mount=type=ssh ssh-add -l > /others 2>&1; echo {anew}\nCMD [\"x\"]\n"
    );
    let commit = scene.commit(&[("Dockerfile", Text(&dockerfile))]);
    // One that is required and not configured says which key to set.
    let error = scene.build(&commit, "one").await.unwrap_err();
    assert!(error.hint().contains("ssh = {"), "{error} {}", error.hint());
    // Another build than without the key.
    let from = Secret::File(key.clone());
    scene.settings.ssh.insert("deploy".into(), from);
    let built = scene.build(&commit, "two").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    assert!(found["keys"].contains(public), "{}", found["keys"]);
    assert!(!found["others"].contains(public), "{}", found["others"]);
    let beside = std::fs::read_dir(scene.folder.path()).unwrap().flatten();
    assert!(
        beside
            .map(|it| it.path().join("ssh"))
            .all(|it| !it.exists())
    );
    // What is no key is told before anything is built.
    std::fs::write(&key, "no key").unwrap();
    scene.no_cache = true;
    let error = scene.build(&commit, "three").await.unwrap_err();
    assert_eq!(error.code(), "build_input", "{error}");
    assert!(error.to_string().contains("ssh.deploy"), "{error}");
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

#[tokio::test]
async fn files_are_as_a_checkout_has_them() {
    let scene = Scene::new().await;
    let of_all = "* text=auto\n*.bat eol=crlf\n*.v ident\n*.bin -text\n\
                  *.ps1 text working-tree-encoding=UTF-16LE eol=crlf\n";
    let commit = scene.commit(&[
        ("Dockerfile", Text(SCRATCH)),
        (".gitattributes", Text(of_all)),
        ("run.bat", Text("a\nb\n")),
        ("run.ps1", Text("a\n")),
        ("run.sh", Text("a\nb\n")),
        ("web/.gitattributes", Text("*.bin eol=crlf text\n")),
        ("web/x.bin", Text("a\n")),
        ("x.bin", Text("a\n")),
        ("x.v", Text("$Id$\n")),
    ]);
    let built = scene.build(&commit, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    let id = git2::Oid::hash_object(git2::ObjectType::Blob, b"$Id$\n").unwrap();
    let version = format!("$Id: {id} $\n");
    for (path, text) in [
        ("run.bat", "a\r\nb\r\n"),
        ("run.ps1", "a\0\r\0\n\0"),
        ("run.sh", "a\nb\n"),
        ("web/x.bin", "a\r\n"),
        ("x.bin", "a\n"),
        ("x.v", &version),
    ] {
        assert_eq!(found[&format!("app/{path}")], text, "{path}");
    }
    scene.clean_up().await;
}

#[tokio::test]
async fn other_folders_and_images_are_found_by_their_names() {
    let mut scene = Scene::new().await;
    let Some(base) = base(&scene).await else {
        return;
    };
    let folder = |path: &str| Named::Folder(path.into());
    scene.settings.context = "app".into();
    scene.settings.contexts = [
        ("lib".to_owned(), folder("libs/lib")),
        ("tools".to_owned(), folder("tools")),
        ("unused".to_owned(), folder("docs")),
        ("debian:12".to_owned(), Named::Image(base.parse().unwrap())),
    ]
    .into();
    // Numbers of stages are as they are without them.
    let dockerfile = "FROM debian:12 AS make\n\
                      RUN --mount=type=bind,from=tools,target=/t sh /t/make /made\n\
                      FROM scratch\n\
                      COPY --from=0 /made /app/made\n\
                      COPY --from=LIB . /app/lib/\n\
                      COPY . /app/\n\
                      CMD [\"x\"]\n";
    let commit = |lib: &str, docs: &str| {
        scene.commit(&[
            ("app/Dockerfile", Text(dockerfile)),
            ("app/.dockerignore", Text("Dockerfile\n")),
            ("libs/lib/a", Text(lib)),
            ("libs/lib/b/c", Text("c")),
            ("libs/lib/.dockerignore", Text("b\n.dockerignore\n")),
            ("tools/make", Text("echo made > $1\n")),
            ("docs/d", Text(docs)),
        ])
    };
    let one = commit("1", "");
    let built = scene.build(&one, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    let expected = [".dockerignore", "lib/", "lib/a", "made"];
    assert_eq!(in_app(&found), expected, "{}", scene.log());
    assert_eq!((&*found["app/lib/a"], &*found["app/made"]), ("1", "made\n"));
    // None of it is left but the image.
    let images = scene
        .docker
        .list_images(None::<ListImagesOptions>)
        .await
        .unwrap();
    let names = images.iter().flat_map(|image| &image.repo_tags);
    let of_app = format!("cutover/{}:", scene.app);
    let left: Vec<_> = names
        .filter(|name| name.starts_with(&of_app) && name.contains("context"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    // They are part of what the image is recognized by.
    assert!(scene.build(&one, "again").await.unwrap().reused.is_some());
    let built = scene.build(&commit("2", ""), "two").await.unwrap();
    assert!(built.reused.is_none());
    assert_eq!(files_of(&scene, &built.image_id).await["app/lib/a"], "2");

    scene
        .settings
        .contexts
        .insert("gone".into(), folder("none"));
    let error = scene.build(&one, "three").await.unwrap_err();
    assert!(matches!(error, BuildError::NoContext(_)), "{error}");
    remove_base(&scene, &base).await;
    scene.clean_up().await;
}

/// BuildKit's protocol has no such names: the context goes up as a tar.
#[tokio::test]
async fn a_name_that_is_not_text_is_built_all_the_same() {
    let mut scene = Scene::new().await;
    scene.settings.context = "app".into();
    scene.settings.dockerfile = Some("app/x".into());
    let app = {
        let mut app = scene.origin.treebuilder(None).unwrap();
        let blob = scene.origin.blob(SCRATCH.as_bytes()).unwrap();
        app.insert("x", blob, 0o100644).unwrap();
        let blob = scene.origin.blob(b"odd").unwrap();
        app.insert(&b"\xffodd"[..], blob, 0o100644).unwrap();
        let ignore = scene.origin.blob(b".dockerignore\n").unwrap();
        app.insert(".dockerignore", ignore, 0o100644).unwrap();
        app.write().unwrap()
    };
    let files = [("docker/x", Text(SCRATCH)), ("else", Text(""))];
    let commit = scene.commit_with(&files, Some(("app", app)));
    let built = scene.build(&commit, "one").await.unwrap();
    let found = files_of(&scene, &built.image_id).await;
    let odd: Vec<_> = found.keys().filter(|path| path.ends_with("odd")).collect();
    assert_eq!(odd.len(), 1, "{:?}", in_app(&found));
    let all: Vec<_> = found
        .keys()
        .filter(|path| path.starts_with("app/"))
        .collect();
    assert_eq!(
        all.len(),
        3,
        "no file of ours and no .dockerignore: {all:?}"
    );

    // One from elsewhere would have to be put among the files.
    scene.settings.dockerfile = Some("docker/x".into());
    let other = [("docker/x", Text("FROM scratch\nCOPY . /\n"))];
    let commit = scene.commit_with(&other, Some(("app", app)));
    let error = scene.build(&commit, "two").await.unwrap_err();
    assert!(error.to_string().contains("`\\xffodd` has"), "{error}");

    // So would one without its line about who reads it.
    scene.settings.dockerfile = Some("app/x".into());
    scene.settings.frontends = Frontends::Builtin;
    let app = {
        let mut tree = scene.origin.treebuilder(None).unwrap();
        let text = format!("# syntax=example/reader\n{SCRATCH}");
        let blob = scene.origin.blob(text.as_bytes()).unwrap();
        tree.insert("x", blob, 0o100644).unwrap();
        tree.insert(&b"\xffodd"[..], blob, 0o100644).unwrap();
        tree.write().unwrap()
    };
    let commit = scene.commit_with(&[], Some(("app", app)));
    let error = scene.build(&commit, "three").await.unwrap_err();
    assert!(error.to_string().contains("is not UTF-8"), "{error}");
    scene.clean_up().await;
}
