//! `[apps.NAME]`: one section for each app.

use std::time::Duration;

use super::app_proxy::{self, app_proxy, prefix};
use super::claims::Claims;
use super::cron::crons;
use super::deploy::{deploy, hooks};
use super::file::{Node, Section};
use super::grants::Grants;
use super::health::health;
use super::process::{Processes, processes};
use super::values::{in_repository, patterns, positive};
use super::webhook::webhook;
use super::{App, Docker, Protocol, Repo, Strategy, build, repo, report, run, site, source, test};
use crate::ids::AppName;

/// Reads one app; returns it with the position of its `was` in the file. Every key is read before a
/// missing required key ends the function, so that all problems are reported.
pub(super) fn app(
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
