//! Every door's refs end as a deployment or as a reason, in the answer and in the database.

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::*;
use crate::config::{App, Loaded};
use crate::engine::Engine;
use crate::principal::{Principal, Requester};
use crate::proxy::control::Client;
use crate::source;
use crate::state::State;
use crate::store::pending_pushes::PendingPush;
use crate::store::{Store, apps, deployments};
use crate::webhook::{self, Content, Forge, Received, Ref};

/// An agent without workers, Docker or a proxy, and the bare repository of its two apps.
struct Scene {
    agent: Agent,
    repository: PathBuf,
    _folder: tempfile::TempDir,
}

const TOGETHER: &str = "it was pushed together with the branch `main`, which is deployed instead";

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let apps = "[apps.all]\nrepo = 'one.git'\nport = 1\nbranches = ['*']\n\
                    domains = ['all.test']\n\
                    [apps.docs]\nrepo = 'one.git'\nport = 1\nbranch = 'feature'\n\
                    domains = ['docs.test']\n\
                    [apps.mono]\nrepo = 'two.git'\nport = 1\npaths = ['a/**']\ntags = 'v*'\n\
                    domains = ['mono.test']\n\
                    [apps.pulled]\nimage = 'hello:1'\nport = 1\ndomains = ['pulled.test']\n\
                    [apps.far]\nrepo = 'https://example.com/far.git'\nport = 1\n\
                    domains = ['far.test']\n";
        std::fs::write(&path, apps).unwrap();
        let config = Loaded::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let store = Store::open(folder.path()).unwrap();
        let id = store.write(apps::agent_id).await.unwrap();
        let engine = Engine::docker(
            "unix:///nowhere".parse().unwrap(),
            id.clone(),
            folder.path(),
        );
        let proxy = Client::new(folder.path().join("nowhere"));
        crate::source::init();
        let repository = folder.path().join("one.git");
        git2::Repository::init_bare(&repository).unwrap();
        Self {
            agent: Agent::new(config, id, store, engine, proxy),
            repository,
            _folder: folder,
        }
    }

    /// Commits to a ref of the repository; gives the commit's id.
    fn commit(&self, git_ref: &str, message: &str) -> CommitId {
        let git = git2::Repository::open_bare(&self.repository).unwrap();
        let tree = git.treebuilder(None).unwrap().write().unwrap();
        let tree = git.find_tree(tree).unwrap();
        let who = git2::Signature::now("Ada", "ada@example.com").unwrap();
        let id = git.commit(Some(git_ref), &who, &who, message, &tree, &[]);
        id.unwrap().to_string().parse().unwrap()
    }

    fn push(&self, refs: Vec<Moved>) -> Push {
        Push {
            repository: self.repository.clone(),
            refs,
            no_cache: false,
            pull: false,
            skip: false,
            by: Requester::GitHook { uid: 7 },
        }
    }

    async fn hook(&self, refs: Vec<Moved>) -> Vec<Outcome> {
        let sender = Principal::admin(Requester::Local { uid: 7 });
        let push = self.push(refs);
        pushed(&self.agent, push, &sender).await.unwrap()
    }

    /// What is recorded of each ref: the app, the ref, whether it is deployed, why not, and by whom.
    async fn recorded(&self) -> Vec<(String, String, bool, Option<String>, Requester)> {
        let read = |db: &Connection| {
            let mut query = db.prepare("SELECT * FROM moved_refs ORDER BY id")?;
            let rows = query.query_map([], |row| {
                let by: String = row.get("requested_by")?;
                Ok((
                    row.get("app")?,
                    row.get("ref")?,
                    row.get::<_, Option<String>>("deployment")?.is_some(),
                    row.get("reason")?,
                    serde_json::from_str(&by).unwrap(),
                ))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        };
        self.agent.store.read(read).await.unwrap()
    }

    /// The deployments of an app, oldest first.
    async fn deployments(&self, app: &str) -> Vec<deployments::Deployment> {
        let app: AppName = app.parse().unwrap();
        let list = move |db: &Connection| deployments::list(db, &app, None, 100);
        let mut all = self.agent.store.read(list).await.unwrap();
        all.reverse();
        all
    }
}

fn moved(git_ref: &str, to: &CommitId) -> Moved {
    Moved::read(git_ref, &"0".repeat(40), to.as_str())
}

/// One line for each ref and app: where it is deployed, or why not.
fn said(outcomes: &[Outcome]) -> Vec<String> {
    let line = |it: &Outcome| {
        let app = it.app.as_ref().map_or("", |app| app.as_str());
        let name = it.git_ref.trim_start_matches("refs/heads/");
        let reason = it.reason.as_deref().unwrap_or("deployed");
        format!("{app} {name}: {reason}")
    };
    outcomes.iter().map(line).collect()
}

fn delivered(refs: &[(&str, &CommitId)], body: u8) -> Received {
    let push = |(name, new): &(&str, &CommitId)| webhook::Push {
        repository: String::new(),
        git_ref: Ref::Branch((*name).to_owned()),
        old: None,
        new: Some((*new).clone()),
        commit: Some((*new).clone()),
        message: None,
        author: None,
        pusher: Some("ada".to_owned()),
        forced: false,
        skip: false,
    };
    Received {
        forge: Forge::Bitbucket,
        event: "repo:push".to_owned(),
        delivery: None,
        body_hash: [body; 32],
        content: Content::Pushes(refs.iter().map(push).collect()),
    }
}

#[tokio::test]
async fn a_webhook_names_every_ref_and_what_became_of_it() {
    let scene = Scene::new().await;
    let (one, two) = ("1".repeat(40), "2".repeat(40));
    let (one, two) = (one.parse().unwrap(), two.parse().unwrap());
    let app = &scene.agent.app(&"all".parse().unwrap()).unwrap();
    let refs = [("feature", &one), ("main", &two)];
    let answer = delivery(&scene.agent, app, delivered(&refs, 1), None)
        .await
        .unwrap();
    let overtaken = format!("all feature: {TOGETHER}");
    let expected = [overtaken.as_str(), "all main: deployed"];
    assert_eq!(said(&answer.refs), expected);
    assert_eq!(answer.refs[1].deployment, answer.deployment);
    let reason = format!("refs/heads/feature: not deployed: {TOGETHER}");
    assert_eq!(answer.reason, Some(reason));
    let by = Requester::Webhook {
        forge: "bitbucket".to_owned(),
        user: Some("ada".to_owned()),
        from: None,
    };
    let [queued] = &scene.deployments("all").await[..] else {
        panic!("one deployment")
    };
    assert_eq!(
        (&queued.commit, &queued.requested_by),
        (&Some(two.clone()), &Some(by.clone()))
    );
    let recorded = scene.recorded().await;
    assert_eq!(recorded.len(), 2);
    assert!(recorded.iter().all(|row| row.4 == by));
    assert_eq!((recorded[0].2, recorded[1].2), (false, true));

    // The same again leads to the same, and is not recorded twice.
    let again = delivery(&scene.agent, app, delivered(&refs, 1), None)
        .await
        .unwrap();
    assert_eq!(
        (again.delivery, again.deployment),
        (answer.delivery, answer.deployment)
    );
    let before = "all main: this push was delivered before";
    assert_eq!(said(&again.refs), [overtaken.as_str(), before]);
    assert_eq!(scene.recorded().await.len(), 2);
}

/// The branch may turn out to change nothing under `paths`, which a tag need not: it goes first.
#[tokio::test]
async fn of_a_branch_and_tags_in_one_delivery_the_highest_version_goes_first_each_time() {
    let scene = Scene::new().await;
    let commit = |digit: &str| -> CommitId { digit.repeat(40).parse().unwrap() };
    let (one, two, three) = (commit("1"), commit("2"), commit("3"));
    let app = &scene.agent.app(&"mono".parse().unwrap()).unwrap();
    let received = || {
        let refs = [("main", &one), ("v10", &three), ("v9", &two)];
        let mut received = delivered(&refs, 1);
        if let Content::Pushes(pushes) = &mut received.content {
            for (push, name) in pushes.iter_mut().zip(["main", "v10", "v9"]).skip(1) {
                push.git_ref = Ref::Tag(name.to_owned());
            }
        }
        received
    };
    let answer = delivery(&scene.agent, app, received(), None).await.unwrap();
    let queued = scene.deployments("mono").await;
    let refs: Vec<_> = queued.iter().map(|it| it.git_ref.as_deref()).collect();
    assert_eq!(refs, [Some("refs/tags/v10"), Some("refs/heads/main")]);
    let led_to = |answer: &Answer| -> Vec<_> {
        let refs = answer.refs.iter();
        refs.map(|it| it.deployment.clone()).collect()
    };
    let expected = [Some(queued[1].id.clone()), Some(queued[0].id.clone()), None];
    assert_eq!(led_to(&answer), expected);
    let again = delivery(&scene.agent, app, received(), None).await.unwrap();
    assert_eq!(led_to(&again), expected);
    assert_eq!(scene.deployments("mono").await.len(), 2);
}

#[tokio::test]
async fn the_hook_hands_over_every_ref_for_every_app() {
    let scene = Scene::new().await;
    let feature = scene.commit("refs/heads/feature", "feature");
    let main = scene.commit("refs/heads/main", "main");
    let left = scene.commit("refs/heads/left", "x\n\n[skip ci]");
    let gone = Moved::read("refs/heads/gone", main.as_str(), &"0".repeat(40));
    let refs = vec![
        moved("refs/heads/feature", &feature),
        moved("refs/heads/main", &main),
        moved("refs/heads/left", &left),
        gone,
    ];
    let outcomes = scene.hook(refs).await;
    let expected = [
        &format!("all feature: {TOGETHER}"),
        "all main: deployed",
        "all left: the head commit's message contains `[skip ci]`",
        "all gone: the branch `gone` was deleted; the live release keeps serving",
        "docs feature: deployed",
        "docs main: a push to `main`; `docs` deploys `feature`",
        "docs left: a push to `left`; `docs` deploys `feature`",
        "docs gone: a push to `gone`; `docs` deploys `feature`",
    ];
    assert_eq!(said(&outcomes), expected);
    let recorded = scene.recorded().await;
    assert_eq!(recorded.len(), expected.len());
    for (outcome, row) in outcomes.iter().zip(&recorded) {
        assert_eq!(row.1, outcome.git_ref);
        assert_eq!(
            (row.2, &row.3),
            (outcome.deployment.is_some(), &outcome.reason)
        );
        assert_eq!(row.4, Requester::GitHook { uid: 7 });
    }
    assert_eq!(scene.deployments("all").await[0].commit, Some(main));
    assert_eq!(scene.deployments("docs").await[0].commit, Some(feature));
    assert!(scene.deployments("far").await.is_empty());
}

#[tokio::test]
async fn what_is_pushed_to_a_pinned_app_is_recorded_and_not_deployed() {
    use crate::deploy::hold;
    use crate::store::holds::Hold::Pin;
    let scene = Scene::new().await;
    let (agent, all) = (&scene.agent, "all".parse().unwrap());
    let app = agent.app(&all).unwrap();
    let by = Requester::Local { uid: 7 };
    let why = Some("until Monday".to_owned());
    let held = hold::set(agent, &all, Pin, why.clone(), false, by.clone()).await;
    let since = held.unwrap().unwrap().at;
    let held = hold::set(agent, &all, Pin, why, false, Requester::Agent).await;
    assert_eq!(held.unwrap().unwrap().at, since, "it is pinned already");

    let one = scene.commit("refs/heads/main", "one");
    let outcomes = scene.hook(vec![moved("refs/heads/main", &one)]).await;
    let expected = "`all` was pinned by local user (uid 7) (until Monday); `cutover unpin all` lets pushes go live again";
    assert_eq!(outcomes[0].reason.as_deref(), Some(expected));
    assert!(outcomes[0].skipped);
    let two = "2".repeat(40).parse().unwrap();
    let refs = [("feature", &two), ("main", &one)];
    let answer = delivery(agent, &app, delivered(&refs, 1), None).await;
    let reason = answer.unwrap().reason.unwrap();
    assert!(
        reason.contains("until Monday") && reason.contains(TOGETHER),
        "{reason}"
    );
    let states = async || {
        let made = scene.deployments("all").await;
        made.iter().map(|it| it.state).collect::<Vec<_>>()
    };
    assert_eq!(states().await, [State::Skipped; 2]);

    hold::set(agent, &all, Pin, None, true, by).await.unwrap();
    let three = scene.commit("refs/heads/feature", "three");
    scene.hook(vec![moved("refs/heads/feature", &three)]).await;
    let after = [State::Skipped, State::Skipped, State::Queued];
    assert_eq!(states().await, after);
}

#[tokio::test]
async fn a_repository_of_no_app_is_said_and_a_sender_sees_only_its_own_apps() {
    let scene = Scene::new().await;
    let main = scene.commit("refs/heads/main", "main");
    let mut push = scene.push(vec![moved("refs/heads/main", &main)]);
    push.repository = Path::new("/nowhere.git").to_owned();
    let mut sender = Principal::admin(Requester::Agent);
    let outcomes = pushed(&scene.agent, push, &sender).await.unwrap();
    let why = " main: no app in deploy.toml has `repo = \"/nowhere.git\"`";
    assert_eq!(said(&outcomes), [why]);

    sender.apps = crate::principal::Scope::Apps(vec!["docs".parse().unwrap()]);
    let push = scene.push(vec![moved("refs/heads/main", &main)]);
    let outcomes = pushed(&scene.agent, push, &sender).await.unwrap();
    let why = "docs main: a push to `main`; `docs` deploys `feature`";
    assert_eq!(said(&outcomes), [why]);
}

fn row(git_ref: &str, commit: &CommitId, skip: bool) -> PendingPush {
    PendingPush {
        app: "all".parse().unwrap(),
        git_ref: git_ref.to_owned(),
        old: None,
        commit: commit.clone(),
        no_cache: false,
        pull: false,
        skip,
        requested_by: Requester::GitHttp {
            token: "admin".to_owned(),
            user: None,
            from: None,
        },
    }
}

#[tokio::test]
async fn over_http_each_ref_is_decided_about_once_even_if_the_hook_hands_it_over() {
    let scene = Scene::new().await;
    let feature = scene.commit("refs/heads/feature", "feature");
    let main = scene.commit("refs/heads/main", "main");
    let push = vec![
        row("refs/heads/feature", &feature, false),
        row("refs/heads/main", &main, false),
    ];
    pending::begin(&scene.agent, push.clone()).await.unwrap();
    let outcomes = pending::moved(&scene.agent, push.clone()).await.unwrap();
    let expected = [
        &format!("all feature: {TOGETHER}"),
        "all main: deployed",
        "docs feature: deployed",
        "docs main: a push to `main`; `docs` deploys `feature`",
    ];
    assert_eq!(said(&outcomes), expected);
    assert!(
        pending::moved(&scene.agent, push.clone())
            .await
            .unwrap()
            .is_empty()
    );

    // The repository's own hook was quicker.
    pending::begin(&scene.agent, push.clone()).await.unwrap();
    let refs = vec![
        moved("refs/heads/feature", &feature),
        moved("refs/heads/main", &main),
    ];
    assert_eq!(scene.hook(refs).await.len(), 4);
    assert!(pending::moved(&scene.agent, push).await.unwrap().is_empty());
    assert_eq!(scene.deployments("all").await.len(), 2);

    let skipped = vec![row("refs/heads/main", &main, true)];
    pending::begin(&scene.agent, skipped.clone()).await.unwrap();
    let outcomes = pending::moved(&scene.agent, skipped).await.unwrap();
    assert!(outcomes[0].skipped, "{outcomes:?}");
    let all = scene.deployments("all").await;
    assert_eq!((all.len(), all[2].state), (3, State::Skipped));
    assert_eq!(outcomes[0].deployment.as_ref(), Some(&all[2].id));
    assert!(all[1].state == State::Queued, "it takes nobody's place");
}

#[tokio::test]
async fn a_push_that_the_last_agent_received_is_decided_about_as_one() {
    let scene = Scene::new().await;
    let feature = scene.commit("refs/heads/feature", "feature");
    let main = scene.commit("refs/heads/main", "main");
    let push = vec![
        row("refs/heads/main", &main, false),
        row("refs/heads/feature", &feature, false),
    ];
    pending::begin(&scene.agent, push).await.unwrap();
    let agent = std::sync::Arc::new(scene.agent);
    pending::take_up(agent.clone()).await;
    let scene = Scene {
        agent: std::sync::Arc::into_inner(agent).unwrap(),
        ..scene
    };
    // The own branch goes live, whichever ref was pushed last.
    let [queued] = &scene.deployments("all").await[..] else {
        panic!("one deployment")
    };
    assert_eq!(queued.commit, Some(main));
    assert_eq!(scene.recorded().await.len(), 4);
}

#[tokio::test]
async fn a_tag_object_is_nobodys_commit() {
    let scene = Scene::new().await;
    // Where the forge names the tag object alone, the commit is not known before the fetch.
    let app = (*scene.agent.app(&"all".parse().unwrap()).unwrap()).clone();
    let app = App {
        tags: vec![crate::config::Pattern::parse("*").unwrap()],
        ..app
    };
    let object = "3".repeat(40).parse().unwrap();
    let mut received = delivered(&[("v1", &object)], 1);
    if let Content::Pushes(pushes) = &mut received.content {
        pushes[0].git_ref = Ref::Tag("v1".to_owned());
        pushes[0].commit = None;
    }
    delivery(&scene.agent, &app, received, None).await.unwrap();
    let queued = scene.deployments("all").await.remove(0);
    assert_eq!(queued.commit, None);
    assert_eq!(queued.goal, deployments::Goal::Pushed(object));

    // A repository on this machine is asked.
    let main = scene.commit("refs/heads/main", "main");
    let tag = {
        let git = git2::Repository::open_bare(&scene.repository).unwrap();
        let oid = git2::Oid::from_str(main.as_str()).unwrap();
        let target = git.find_object(oid, None).unwrap();
        let who = git2::Signature::now("Ada", "ada@example.com").unwrap();
        git.tag("v1", &target, &who, "one", false).unwrap()
    };
    let tag = tag.to_string().parse().unwrap();
    assert_eq!(source::peeled(&scene.repository, &tag), Some(main));
}

#[tokio::test]
async fn a_tag_on_another_commit_than_its_branch_is_queued_before_it() {
    let scene = Scene::new().await;
    let repository = scene.repository.with_file_name("two.git");
    git2::Repository::init_bare(&repository).unwrap();
    let [main, tag] = ["1", "2"].map(|digit| digit.repeat(40).parse().unwrap());
    let refs = vec![moved("refs/heads/main", &main), moved("refs/tags/v1", &tag)];
    let push = Push {
        repository,
        ..scene.push(refs)
    };
    let sender = Principal::admin(Requester::Local { uid: 7 });
    let outcomes = pushed(&scene.agent, push, &sender).await.unwrap();
    let queued = scene.deployments("mono").await;
    let refs: Vec<_> = queued
        .iter()
        .filter_map(|it| it.git_ref.as_deref())
        .collect();
    assert_eq!(refs, ["refs/tags/v1", "refs/heads/main"]);
    assert!(
        queued.iter().all(|it| it.state == State::Queued),
        "{queued:?}"
    );
    let led_to: Vec<_> = outcomes
        .into_iter()
        .map(|it| it.deployment.unwrap())
        .collect();
    assert_eq!(led_to, [queued[1].id.clone(), queued[0].id.clone()]);
}

#[tokio::test]
async fn what_a_registry_says_of_pulls_is_stored_once() {
    let scene = Scene::new().await;
    let app = scene.agent.app(&"pulled".parse().unwrap()).unwrap();
    let of = app.image().unwrap();
    let told = async |is_noise| {
        let notice = webhook::Notice {
            pushed: Err("no tag was pushed".into()),
            is_noise,
        };
        let told = image::told(&scene.agent, &app, of, notice, None);
        told.await.unwrap().delivery
    };
    let first = told(true).await;
    assert_eq!(told(true).await, first);
    assert_ne!(told(false).await, first);
}
