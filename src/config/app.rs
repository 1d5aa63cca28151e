//! `[apps.NAME]`: one section for each app.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::app_proxy::{self, app_proxy, prefix};
use super::claims::Claims;
use super::command::{Command, command};
use super::cron::crons;
use super::file::{Node, Section};
use super::grants::Grants;
use super::health::health;
use super::process::{Processes, processes};
use super::values::{duration, in_repository, patterns, positive, secret, some_networks};
use super::{
    App, Deploy, Docker, Hooks, Protocol, Repo, Strategy, Webhook, build, repo, report, run,
    similar, site, source, test,
};
use crate::ids::AppName;
use crate::webhook::Forge;

/// `docker`: what apps may have of this machine.
pub(super) fn apps(
    node: Node<'_>,
    claims: &mut Claims,
    docker: &Docker,
) -> Option<BTreeMap<AppName, Arc<App>>> {
    let mut apps = BTreeMap::new();
    let mut renamed = Vec::new();
    let mut linked = Vec::new();
    for (name, node) in node.entries("a section for each app, `[apps.NAME]`")? {
        let parsed = name.parse::<AppName>();
        if let Err(error) = &parsed {
            node.file.report(node.start, error.to_string());
        }
        // Read even if the name is invalid, so that mistakes inside are reported in the same run.
        let file = node.file;
        let mut links_at = Vec::new();
        if let Some((app, was_at)) = app(name, parsed.ok(), node, claims, docker, &mut links_at) {
            let links = app.run.links.iter().cloned().zip(links_at);
            linked.extend(links.map(|(to, at)| (app.name.clone(), to, file, at)));
            if let Some(was) = app.was.clone() {
                renamed.push((was, app.name.clone(), file, was_at));
            }
            apps.insert(app.name.clone(), Arc::new(app));
        }
    }
    for (index, (was, name, file, at)) in renamed.iter().enumerate() {
        let other = renamed[..index].iter().find(|other| other.0 == *was);
        let key = format!("`apps.{name}.was`");
        let problem = match other {
            _ if was == name => format!("{key} is the app's own name: expected its former one"),
            _ if apps.contains_key(was) => format!(
                "{key} is `{was}`, which is an app of this file: expected a name that no app has \
                 any more (of two renames that meet, reload the first before the second)"
            ),
            Some((_, other, ..)) => {
                format!("{key} is `{was}`, as `apps.{other}.was` is: expected one successor")
            }
            None => continue,
        };
        file.report(*at, problem);
    }
    for (from, to, file, at) in linked {
        let problem = match apps.get(&to).map(|app: &Arc<App>| app.port) {
            Some(Some(_)) => continue,
            Some(None) => "which has no `port` and takes no requests".to_owned(),
            None => {
                let others = apps.keys().filter(|name| **name != from);
                let meant = similar::nearest(to.as_str(), others.map(AppName::as_str));
                let meant = meant.map_or(String::new(), |it| format!(" (did you mean `{it}`?)"));
                format!("which is not an app in this file{meant}")
            }
        };
        let key = format!("`apps.{from}.run.links`");
        file.report(
            at,
            format!("{key} names `{to}`, {problem}: expected an app that serves"),
        );
    }
    Some(apps)
}

/// Reads one app; returns it with the position of its `was` in the file. Every key is read before a
/// missing required key ends the function, so that all problems are reported.
fn app(
    shown: &str,
    name: Option<AppName>,
    node: Node<'_>,
    claims: &mut Claims,
    docker: &Docker,
    links_at: &mut Vec<usize>,
) -> Option<(App, usize)> {
    let owner = format!("the app `{shown}`");
    let whole = Node {
        path: node.path.clone(),
        ..node
    };
    let mut section = node.section();
    let was = section.node("was");
    let was_at = was.as_ref().map_or(0, |node| node.start);
    let was = was.and_then(|node| {
        const EXPECTED: &str = "the name that the app had before";
        let name = node.str(EXPECTED)?.parse();
        name.map_or_else(|_| node.wrong(EXPECTED), Some)
    });
    let is_image = section.has("image");
    let repo = match is_image {
        true => image(&mut section),
        false => section.required("repo", repo::REPO, repository),
    };
    let poll = section.read("poll", poll);
    if poll.is_some() && matches!(&repo, Some(Repo::Image(image)) if image.digest.is_some()) {
        section.report(format!(
            "`{}` cannot be combined with a digest in `image`, which never stands for anything else",
            section.key("poll")
        ));
    }
    if section.has("poll") && !is_image {
        section.report(format!(
            "`{}` needs `image`: a repository tells by its webhook when there is something new",
            section.key("poll")
        ));
    }
    let branch = section.read("branch", |node| {
        let text = node.str("a branch name")?;
        repo::branch(text).map_or_else(|expected| node.wrong(expected), Some)
    });
    let branches = section.read("branches", patterns);
    let tags = section.read("tags", patterns);
    let mut proxy = section.section("proxy");
    let prefix = proxy.read("path", prefix).unwrap_or("/".into());
    let paths = section.read("paths", in_repository);
    let processes = section.read("processes", processes);
    let procfile = section.read("procfile", |node| node.boolean());
    let is_site = section.has("kind");
    let site = site::site(&mut section);
    let cron = section.read("cron", crons);
    let port = match is_site && !section.has("port") {
        true => Some(Some(site::PORT)),
        false => port(&mut section, processes.as_ref()),
    };
    let domains = section.node("domains");
    let named = domains.is_some();
    let domains = domains.and_then(|node| domains_of(node, &prefix, &owner, claims));
    let takes_requests = port != Some(None);
    let domains_ask = section.read("domains_ask", domains_ask);
    let asks = section.has("domains_ask");
    if takes_requests && (!named || asks || domains.as_ref().is_some_and(Vec::is_empty)) {
        claims.every_other_host(whole, &prefix, &owner);
    }
    for key in ["domains", "domains_ask"] {
        if section.has(key) && !takes_requests {
            section.report(format!(
                "`{}` needs `port`: expected the port that the app listens on",
                section.key(key)
            ));
        }
    }
    let protocol = section.read("protocol", |node| {
        const EXPECTED: &str = "\"http1\" or \"h2c\"";
        match node.str(EXPECTED)? {
            "http1" => Some(Protocol::Http1),
            "h2c" => Some(Protocol::H2c),
            _ => node.wrong(EXPECTED),
        }
    });
    let webhook = webhook(section.section("webhook"));
    let report = section
        .node("report")
        .filter(|_| !is_image)
        .and_then(|node| report::report(node, shown, repo.as_ref(), webhook.forge));
    let source = source::source(section.section("source"));
    let build = build::build(section.section("build"), site);
    let usual = if is_site { site::HEALTH } else { "/" };
    let health = health(section.section("health"), usual);
    let deploy = deploy(section.section("deploy"));
    let grants = Grants::of(docker, name.as_ref());
    let run = run::run(section.section("run"), &grants, links_at);
    if run.container.host_network
        && port.flatten().is_some()
        && deploy.strategy != Strategy::Recreate
    {
        section.report(format!(
            "`{}.network` is \"host\", where old and new release cannot have the same port at a time: set \
             `deploy.strategy = \"recreate\"`",
            section.key("run")
        ));
    }
    let (hooks, hook) = hooks(section.section("hooks"));
    let has_test = section.has("test");
    let has_stages = !is_image && build.command.is_none();
    let test = test::test(section.section("test"), has_test, has_stages, hook);
    let badge = section.read("badge", |node| node.boolean());
    let usual = match deploy.strategy {
        Strategy::Recreate => app_proxy::HOLD,
        _ => Duration::ZERO,
    };
    // Not known if one of them is wrong.
    let own = match &domains {
        None if named => None,
        domains => Some(domains.as_deref().unwrap_or_default()),
    };
    let proxy = app_proxy(proxy, prefix, usual, own);
    let front = proxy.front.as_ref();
    if asks && front.is_some_and(|front| front.canonical.is_some()) {
        section.report(format!(
            "`{}` cannot be combined with `proxy.canonical`, to which all other names lead: remove one of them",
            section.key("domains_ask")
        ));
    }
    section.done();
    let app = App {
        name: name?,
        was,
        repo: repo?,
        poll,
        branch: branch.unwrap_or("main".into()),
        branches: branches.unwrap_or_default(),
        tags: tags.unwrap_or_default(),
        paths,
        domains: domains.unwrap_or_default(),
        domains_ask,
        port: port?,
        protocol: protocol.unwrap_or_default(),
        webhook,
        report,
        source,
        build,
        health,
        deploy,
        run,
        processes,
        procfile: procfile.unwrap_or(true) && !is_site && !is_image,
        cron: cron.unwrap_or_default(),
        test,
        hooks,
        proxy,
        badge: badge.unwrap_or(false),
    };
    Some((app, was_at))
}

/// `Some(None)` for an app that has processes other than `web` alone.
fn port(section: &mut Section<'_>, processes: Option<&Processes>) -> Option<Option<u16>> {
    let alone = processes.is_some_and(|it| it.web.is_none() && !it.others.is_empty());
    if alone && !section.has("port") {
        section.read("port", |_| Some(()));
        return Some(None);
    }
    let port = section.required("port", "the port that the app listens on", |node| {
        node.integer(1, 65535)
    });
    port.map(|port| Some(port as u16))
}

/// What there is no use for without a repository.
const OF_A_REPOSITORY: [&str; 12] = [
    "repo",
    "branch",
    "branches",
    "tags",
    "paths",
    "source",
    "build",
    "report",
    "kind",
    "dir",
    "fallback",
    "immutable",
];

fn image(section: &mut Section<'_>) -> Option<Repo> {
    for key in OF_A_REPOSITORY {
        if section.has(key) {
            section.report(format!(
                "`{}` cannot be combined with `image`, which comes from a registry: remove one of them",
                section.key(key)
            ));
        }
    }
    // Known all the same, so that it is reported once.
    section.node("repo");
    section.read("image", |node| {
        let text = node.str("the name of an image")?;
        match text.parse() {
            Ok(image) => Some(Repo::Image(image)),
            Err(expected) => node.wrong(expected),
        }
    })
}

fn poll(node: Node<'_>) -> Option<Duration> {
    const LEAST: Duration = Duration::from_secs(5);
    let every = positive(&node)?;
    match every < LEAST {
        true => node.wrong("5s or more"),
        false => Some(every),
    }
}

fn repository(node: Node<'_>) -> Option<Repo> {
    let text = node.str(repo::REPO)?;
    match repo::repo(node.file.folder, text) {
        Ok(repo) => Some(repo),
        // Not quoted in the message, because it may contain a token.
        Err(expected) if text.contains('@') => node.wrong_unshown(expected),
        Err(expected) => node.wrong(expected),
    }
}

fn domains_of(
    node: Node<'_>,
    prefix: &str,
    owner: &str,
    claims: &mut Claims,
) -> Option<Vec<String>> {
    let nodes = node.array("an array of host names such as [\"hello.example.com\"]")?;
    let hosts = nodes
        .into_iter()
        .map(|node| claims.host(node, prefix, owner));
    // Every host is checked before the first invalid one makes the result `None`.
    hosts.collect::<Vec<_>>().into_iter().collect()
}

/// The address of a server; to its query the name is added.
fn domains_ask(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "an address such as \"http://127.0.0.1:8080/known\"";
    let text = node.str(EXPECTED)?;
    let good = url::Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.fragment().is_none()
    });
    match good && text.parse::<http::Uri>().is_ok() {
        true => Some(text.to_owned()),
        // It may have a password in it.
        false => node.wrong_unshown(EXPECTED),
    }
}

fn webhook(mut section: Section<'_>) -> Webhook {
    let forge = section.read("forge", |node| {
        let names = Forge::ALL.map(|forge| format!("\"{forge}\"")).join(", ");
        let expected = format!("one of {names}");
        let text = node.str(&expected)?;
        text.parse().ok().or_else(|| node.wrong(&expected))
    });
    let secrets = section.read("secrets", |node| {
        let nodes = node.array(
            "an array of places to read a secret from, such as [{ env = \"HELLO_WEBHOOK_SECRET\" }]",
        )?;
        Some(nodes.into_iter().filter_map(secret).collect())
    });
    let networks = section.read("networks", some_networks);
    section.done();
    Webhook {
        forge,
        networks,
        secrets: secrets.unwrap_or_default(),
    }
}

fn deploy(mut section: Section<'_>) -> Deploy {
    let strategy = section.read("strategy", |node| {
        const EXPECTED: &str = "\"blue-green\" or \"recreate\"";
        match node.str(EXPECTED)? {
            "blue-green" => Some(Strategy::BlueGreen),
            "recreate" => Some(Strategy::Recreate),
            "canary" => {
                node.wrong("\"blue-green\" or \"recreate\"; this strategy is not supported yet")
            }
            _ => node.wrong(EXPECTED),
        }
    });
    let drain = section.read("drain", duration);
    let bake = section.read("bake", duration);
    let keep_releases = section.read("keep_releases", |node| node.integer(1, 1000));
    let supersede = section.read("supersede", |node| node.boolean());
    section.done();
    Deploy {
        strategy: strategy.unwrap_or(Strategy::BlueGreen),
        drain: drain.unwrap_or(Duration::from_secs(30)),
        bake: bake.unwrap_or(Duration::from_secs(60)),
        keep_releases: keep_releases.unwrap_or(5) as usize,
        supersede: supersede.unwrap_or(true),
    }
}

/// The test command too, which is short for `test.command`.
fn hooks(mut section: Section<'_>) -> (Hooks, Option<Command>) {
    let test = section.read("test", command);
    let release = section.read("release", command);
    section.done();
    (Hooks { release }, test)
}
