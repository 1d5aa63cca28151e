//! `[apps.NAME.proxy]`: how the proxy treats the app's requests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::de::DeValue;

use super::basic_auth::{BasicAuth, basic_auth};
use super::file::{Node, Section};
use super::front::front;
use super::units;
use super::values::{duration, line, path, positive};
use crate::proxy::front::Front;

/// How the proxy treats an app's requests: `[apps.NAME.proxy]`. Unlike the settings that a release
/// runs with, it applies to every release.
#[derive(Debug, Clone)]
pub struct AppProxy {
    /// The path that the app is served under, matched by whole segments; `/` matches every path.
    pub path: String,
    /// Whether `path` is stripped from requests to the app.
    pub strip_path: bool,
    /// The largest request body, in bytes. Absent: no limit.
    pub max_body: Option<u64>,
    /// How long the app may take to accept a connection.
    pub connect_timeout: Duration,
    /// From the end of the request to the start of the response.
    pub first_byte_timeout: Duration,
    /// The longest silence within a body.
    pub idle_timeout: Duration,
    /// How long an idle connection to the app is kept.
    pub keep_alive: Duration,
    /// How long a request waits while there is no instance to handle it, before it gets 503.
    pub hold: Duration,
    /// What requests have to pass first, if anything.
    pub front: Option<Arc<Front>>,
    /// Who has to name themselves. Absent: nobody.
    pub basic_auth: Option<BasicAuth>,
    /// Whether requests without TLS are redirected to where there is a certificate.
    pub https_redirect: bool,
    /// How long every request is held back before it is forwarded. Zero: not at all.
    pub pause: Duration,
    /// If present, every request is answered with 503 and this notice.
    pub maintenance: Option<Notice>,
    /// The files of the app's error pages, by status.
    pub error_pages: BTreeMap<u16, PathBuf>,
}

/// What visitors are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Text(String),
    File(PathBuf),
}

/// How long requests wait by default while an old release makes room for a new one.
pub const HOLD: Duration = Duration::from_secs(60);

/// `usual`: the default of `hold`. `domains`: the app's.
pub(super) fn app_proxy(
    mut section: Section<'_>,
    prefix: String,
    usual: Duration,
    domains: Option<&[String]>,
) -> AppProxy {
    let strip_path = section.read("strip_path", |node| node.boolean());
    let max_body = section.read("max_body", |node| {
        let text = node.str(units::SIZE)?;
        units::size(text).or_else(|| node.wrong(units::SIZE))
    });
    let connect_timeout = section.read("connect_timeout", |node| positive(&node));
    let first_byte_timeout = section.read("first_byte_timeout", |node| positive(&node));
    let idle_timeout = section.read("idle_timeout", |node| positive(&node));
    let keep_alive = section.read("keep_alive", duration);
    let https_redirect = section.read("https_redirect", |node| node.boolean());
    let hold = section.read("hold", duration);
    let pause = section.read("pause", duration);
    let maintenance = section.read("maintenance", notice);
    let error_pages = section.read("error_pages", |node| pages(node, &[413, 502, 503, 504]));
    let front = front(&mut section, domains);
    let basic_auth = basic_auth(&mut section);
    if front.as_ref().is_some_and(|front| front.scope_cookie_paths) && strip_path != Some(true) {
        section.report(format!(
            "`{}` needs `strip_path`: an app that sees its own path sets cookies for it",
            section.key("scope_cookie_paths")
        ));
    }
    section.done();
    AppProxy {
        front,
        basic_auth,
        path: prefix,
        strip_path: strip_path.unwrap_or(false),
        max_body,
        connect_timeout: connect_timeout.unwrap_or(Duration::from_secs(2)),
        first_byte_timeout: first_byte_timeout.unwrap_or(Duration::from_secs(60)),
        idle_timeout: idle_timeout.unwrap_or(Duration::from_secs(60)),
        keep_alive: keep_alive.unwrap_or(Duration::from_millis(1500)),
        https_redirect: https_redirect.unwrap_or(true),
        hold: hold.unwrap_or(usual),
        pause: pause.unwrap_or_default(),
        maintenance,
        error_pages: error_pages.unwrap_or_default(),
    }
}

/// The path that the app is served under, without a trailing `/` unless it is the root.
pub(super) fn prefix(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str =
        "a path such as \"/\" or \"/api\", without `.` and `..`, query or escapes";
    let text = node.str(EXPECTED)?;
    let segment = |part: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&b);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(good)
    };
    match text.strip_prefix('/') {
        Some("") => Some("/".into()),
        Some(rest)
            if rest
                .strip_suffix('/')
                .unwrap_or(rest)
                .split('/')
                .all(segment) =>
        {
            Some(text.trim_end_matches('/').into())
        }
        _ => node.wrong(EXPECTED),
    }
}

/// A message as text, or the file that contains a page.
fn notice(node: Node<'_>) -> Option<Notice> {
    const EXPECTED: &str = "a message for visitors, or a page: { file = \"PATH\" }";
    match node.value.get_ref() {
        DeValue::String(_) => line(node).map(Notice::Text),
        DeValue::Table(_) => match node.entries(EXPECTED)?.pop() {
            Some(("file", file)) => path(file).map(Notice::File),
            _ => node.wrong(EXPECTED),
        },
        _ => node.wrong(EXPECTED),
    }
}

/// The files of the error pages, by status; only statuses in `known` can have one.
pub(super) fn pages(node: Node<'_>, known: &[u16]) -> Option<BTreeMap<u16, PathBuf>> {
    let list: Vec<_> = known.iter().map(u16::to_string).collect();
    let list = list.join(", ");
    let mut pages = BTreeMap::new();
    for (name, node) in
        node.entries("a table of statuses and files such as { 503 = \"busy.html\" }")?
    {
        match name.parse().ok().filter(|status| known.contains(status)) {
            Some(status) => {
                pages.extend(path(node).map(|path| (status, path)));
            }
            None => {
                let text = format!(
                    "a page for `{}` is not supported: expected one of {list}",
                    name.escape_debug()
                );
                node.file.report(node.start, text);
            }
        }
    }
    Some(pages)
}
