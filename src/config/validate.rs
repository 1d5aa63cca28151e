//! Turns deploy.toml into a [`Config`], or reports every problem in it.

use std::io::Read;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::addresses::Addresses;
use super::app_proxy::pages;
use super::apps::apps;
use super::claims::Claims;
use super::file::{self, File, Node, Section};
use super::notify::notifiers;
use super::values::{cpus, memory, networks, path, positive, some_networks};
use super::{
    Agent, BuildCache, Config, Docker, Listeners, Problem, Problems, Proxy, acme, front, otlp,
    syntax, units,
};
use crate::proxy::{HEADER_LIMIT, HIGHEST_HEADER_LIMIT};

/// In bytes. A larger file is not a configuration.
const LONGEST: u64 = 1 << 20;

const DATA_DIR: &str = "/var/lib/cutover";

pub(super) fn read(path: &Path) -> Result<String, Problems> {
    let unreadable = |error: std::io::Error| {
        let text = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "this file does not exist; create one with `cutover init`".into()
            }
            std::io::ErrorKind::IsADirectory => {
                "this is a folder: expected the configuration file, `deploy.toml`".into()
            }
            _ => format!("failed to read this file: {error}"),
        };
        Problems::whole_file(path, text)
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > LONGEST {
        return Err(Problems::whole_file(path, "this file is longer than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let at = Some(file::place(&text, good));
        let text = "invalid UTF-8: the file must be UTF-8 text".into();
        Problems::sorted(path, vec![Problem { at, text }])
    })
}

/// Parses and checks the text of the file at `path`; relative paths in it are resolved against
/// `folder`.
pub(super) fn parse(path: &Path, folder: &Path, text: &str) -> Result<Config, Problems> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let file = File::new(text, folder);
    // What was recovered around a syntax error is guesswork. A duplicate key is the exception: it
    // leaves the rest of the tree intact.
    let whole = errors.iter().all(syntax::is_duplicate);
    for (offset, message) in syntax::mistakes(text, &errors) {
        file.report(offset, format!("invalid TOML: {message}"));
    }
    let config = whole
        .then(|| config(Section::root(&file, tree.get_ref())))
        .flatten();
    file.report_unknown();
    let problems = file.problems.take();
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => Err(Problems::sorted(path, problems)),
    }
}

/// `agent.data_dir` alone, whatever else is wrong with the text. After a syntax error the default
/// is not assumed: the key may be missing only because of the error.
pub(super) fn data_dir(folder: &Path, text: &str) -> Option<PathBuf> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let file = File::new(text, folder);
    let mut agent = Section::root(&file, tree.get_ref()).section("agent");
    if agent.has("data_dir") || agent.is_misshapen() {
        return agent.read("data_dir", path);
    }
    errors.is_empty().then(|| DATA_DIR.into())
}

fn config(mut root: Section<'_>) -> Option<Config> {
    let mut claims = Claims::default();
    let mut addresses = Addresses::default();
    let agent = agent(root.section("agent"), &mut claims, &mut addresses);
    let proxy = proxy(root.section("proxy"), &mut claims, &mut addresses);
    let docker = docker(root.section("docker"));
    let apps = root.read("apps", |node| apps(node, &mut claims, &docker));
    let notify = root.read("notify", notifiers);
    root.done();
    Some(Config {
        agent: agent?,
        proxy,
        docker,
        apps: apps.unwrap_or_default(),
        notify: notify.unwrap_or_default(),
    })
}

fn agent(
    mut section: Section<'_>,
    claims: &mut Claims,
    addresses: &mut Addresses,
) -> Option<Agent> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9000));
    let listen = addresses.read(&mut section, "listen", Some(default));
    let data_dir = section.read("data_dir", path);
    let webhook_networks = section.read("webhook_networks", some_networks);
    let domain = section.read("domain", |node| claims.host(node, "/", "the agent"));
    let otlp = section.read("otlp", otlp::read);
    section.done();
    Some(Agent {
        listen: listen.unwrap_or(default),
        data_dir: data_dir.unwrap_or(DATA_DIR.into()),
        domain,
        webhook_networks,
        otlp,
    })
}

fn proxy(mut section: Section<'_>, claims: &mut Claims, addresses: &mut Addresses) -> Proxy {
    let default = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 80));
    let http = addresses.read(&mut section, "http", Some(default));
    let https = addresses.read(&mut section, "https", None);
    let certificates = section.read("certificates", path);
    let acme = acme::read(&mut section, https.is_some());
    let trusted_proxies = section.read("trusted_proxies", networks);
    let client_ip_header = section.read("client_ip_header", |node| {
        const EXPECTED: &str = "the name of a header field such as \"CF-Connecting-IP\"";
        let text = node.str(EXPECTED)?;
        text.parse().ok().or_else(|| node.wrong(EXPECTED))
    });
    if client_ip_header.is_some() && trusted_proxies.as_ref().is_none_or(Vec::is_empty) {
        section.report(format!(
            "`{}` needs `trusted_proxies`: expected the networks whose word counts, as anybody can send the field",
            section.key("client_ip_header")
        ));
    }
    let proxy_protocol = section
        .read("proxy_protocol", listeners)
        .unwrap_or_default();
    let access_log = section.read("access_log", path);
    let header_limit = section.read("header_limit", |node| {
        const EXPECTED: &str = "an amount from \"4k\" to \"128k\"";
        let size = units::size(node.str(EXPECTED)?);
        let size = size.filter(|size| (4 << 10..=HIGHEST_HEADER_LIMIT as u64).contains(size));
        size.or_else(|| node.wrong(EXPECTED))
    });
    let redirects = section.read("redirects", |node| front::redirects(node, claims));
    let error_pages = section.read("error_pages", |node| {
        pages(node, &[404, 413, 502, 503, 504])
    });
    section.done();
    Proxy {
        http: http.unwrap_or(default),
        https,
        certificates,
        acme,
        client_ip_header,
        trusted_proxies: trusted_proxies.unwrap_or_default(),
        proxy_protocol,
        access_log,
        header_limit: header_limit.map_or(HEADER_LIMIT, |limit| limit as usize),
        redirects: redirects.unwrap_or_default(),
        error_pages: error_pages.unwrap_or_default(),
    }
}

/// Parses `true` (both listeners), `false` (none) or an array of their names.
fn listeners(node: Node<'_>) -> Option<Listeners> {
    const EXPECTED: &str = "`true`, `false`, or an array of listeners, \"http\" and \"https\"";
    match node.value.get_ref() {
        DeValue::Boolean(all) => Some(Listeners {
            http: *all,
            https: *all,
        }),
        DeValue::Array(_) => {
            let mut named = Listeners::default();
            for node in node.array(EXPECTED)? {
                match node.str("\"http\" or \"https\"")? {
                    "http" => named.http = true,
                    "https" => named.https = true,
                    _ => return node.wrong("\"http\" or \"https\""),
                }
            }
            Some(named)
        }
        _ => node.wrong(EXPECTED),
    }
}

/// In bytes: what a small image and its layers take.
const MIN_FREE: u64 = 512 << 20;

fn bytes(node: Node<'_>) -> Option<u64> {
    let text = node.str(units::SIZE)?;
    units::size(text).or_else(|| node.wrong(units::SIZE))
}

/// An amount, or a table with it and an age.
fn build_cache(node: Node<'_>) -> Option<BuildCache> {
    if let DeValue::String(_) = node.value.get_ref() {
        let size = bytes(node)?;
        return Some(BuildCache {
            size: Some(size),
            age: None,
        });
    }
    let mut section = node.section();
    let size = section.read("size", bytes);
    let age = section.read("age", |node| positive(&node));
    if !section.is_misshapen() && !section.has("size") && !section.has("age") {
        section.report(format!(
            "`{}` is missing: expected it or `age`, as in {{ size = \"10g\", age = \"168h\" }}",
            section.key("size")
        ));
    }
    section.done();
    (size.is_some() || age.is_some()).then_some(BuildCache { size, age })
}

fn docker(mut section: Section<'_>) -> Docker {
    const EXPECTED: &str = "`unix:///path` or `tcp://host:port`";
    let host = section.read("host", |node| {
        let text = node.str(EXPECTED)?;
        let good = match text.split_once("://") {
            Some(("unix", path)) => path.starts_with('/'),
            Some(("tcp", rest)) => url::Url::parse(&format!("http://{rest}"))
                .is_ok_and(|url| url.path() == "/" && url.username().is_empty()),
            _ => false,
        };
        match good && !text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            true => Some(text.to_owned()),
            false => node.wrong(EXPECTED),
        }
    });
    let allow_binds = section.read("allow_binds", |node| {
        const EXPECTED: &str = "an array of absolute paths such as [\"/srv\"]";
        let one = |node: Node<'_>| match node.str(EXPECTED)? {
            text if text.starts_with('/') && !text.split('/').any(|part| part == "..") => {
                path(node)
            }
            _ => node.wrong(EXPECTED),
        };
        node.array(EXPECTED)?.into_iter().map(one).collect()
    });
    let allow = section.read("allow", |node| {
        const EXPECTED: &str = "an array of apps such as [\"hello\"]";
        let one = |node: Node<'_>| match node.str(EXPECTED)?.parse() {
            Ok(name) => Some(name),
            Err(_) => node.wrong("the name of an app"),
        };
        node.array(EXPECTED)?.into_iter().map(one).collect()
    });
    let min_free = section.read("min_free", bytes);
    let build_cache = section.read("build_cache", build_cache);
    let build_memory = section.read("build_memory", memory);
    let build_cpus = section.read("build_cpus", cpus);
    section.done();
    Docker {
        min_free: min_free.unwrap_or(MIN_FREE),
        build_cache,
        build_memory,
        build_cpus,
        host: host.unwrap_or("unix:///var/run/docker.sock".into()),
        allow_binds: allow_binds.unwrap_or_default(),
        allow: allow.unwrap_or_default(),
    }
}
