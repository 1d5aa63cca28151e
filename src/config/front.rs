//! `[apps.NAME.proxy]`: who comes in, and what becomes of header fields; and `proxy.redirects`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use toml::de::DeValue;

use super::claims::Claims;
use super::file::{Node, Section};
use super::units;
use super::values::{networks, positive, some_networks};
use crate::proxy::front::{Changes, Front, Logged, PathPattern, RateLimit, Redirect};

/// Fields that frame a message or belong to a connection: changing them would break it.
const FRAMING: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "date",
    "content-encoding",
];

/// `None` if nothing is set. `domains`: the app's.
pub(super) fn front(section: &mut Section<'_>, domains: Option<&[String]>) -> Option<Arc<Front>> {
    let canonical = section.read("canonical", |node| {
        const EXPECTED: &str = "one of the app's own domains, without a wildcard";
        let text = node.str(EXPECTED)?;
        let host = super::claims::host(text).ok();
        let own =
            host.filter(|host| !host.contains('*') && domains.is_none_or(|all| all.contains(host)));
        own.or_else(|| node.wrong(EXPECTED))
    });
    let front = Front {
        redirect: None,
        canonical,
        hsts: section.read("hsts", hsts).flatten(),
        allow: section.read("allow", some_networks).unwrap_or_default(),
        deny: section.read("deny", networks).unwrap_or_default(),
        rate_limit: section.read("rate_limit", rate_limit),
        // Its passwords are read when the routes are made.
        basic_auth: None,
        scope_cookie_paths: section
            .read("scope_cookie_paths", |node| node.boolean())
            .unwrap_or(false),
        compress: section
            .read("compress", |node| node.boolean())
            .unwrap_or(false),
        buffer_requests: section.read("buffer_requests", |node| {
            const EXPECTED: &str = "an amount from \"4k\" to \"16m\"";
            let size = units::size(node.str(EXPECTED)?);
            let size = size.filter(|size| (4 << 10..=16 << 20).contains(size));
            size.or_else(|| node.wrong(EXPECTED))
        }),
        max_connections: section.read("max_connections", |node| node.integer(1, 1_000_000)),
        access_log: section.read("access_log", logged).flatten(),
        request_headers: section.read("request_headers", changes).unwrap_or_default(),
        response_headers: section
            .read("response_headers", changes)
            .unwrap_or_default(),
    };
    (front != Front::default()).then(|| Arc::new(front))
}

fn hsts(node: Node<'_>) -> Option<Option<String>> {
    const EXPECTED: &str =
        "`true`, `false`, or a value such as \"max-age=31536000; includeSubDomains\"";
    match node.value.get_ref() {
        DeValue::Boolean(true) => Some(Some("max-age=31536000".into())),
        DeValue::Boolean(false) => Some(None),
        DeValue::String(text) if text.starts_with("max-age=") && is_value(text) => {
            Some(Some(text.to_string()))
        }
        _ => node.wrong(EXPECTED),
    }
}

fn rate_limit(node: Node<'_>) -> Option<RateLimit> {
    let mut section = node.section();
    section.read("per", |node| match node.str("\"client\"")? {
        "client" => Some(()),
        _ => node.wrong("\"client\""),
    });
    let count = |node: Node<'_>| node.integer(1, 1_000_000).map(|count| count as u32);
    let requests = section.required("requests", "how many requests a client may send", count);
    let window = section.required("window", "in which time, such as \"1m\"", |n| positive(&n));
    let burst = section.read("burst", count);
    section.done();
    let requests = requests?;
    Some(RateLimit {
        requests,
        window_ms: window?.as_millis() as u64,
        burst: burst.unwrap_or(requests),
    })
}

/// `false`: nothing is logged.
fn logged(node: Node<'_>) -> Option<Option<Logged>> {
    match node.value.get_ref() {
        DeValue::Boolean(true) => return Some(None),
        DeValue::Boolean(false) => {
            return Some(Some(Logged {
                headers: Vec::new(),
                except: PathPattern::parse("*").into_iter().collect(),
            }));
        }
        DeValue::Table(_) => {}
        _ => {
            return node.wrong(
                "`true`, `false`, or a table such as { headers = [\"User-Agent\"], except = [\"/metrics\"] }",
            );
        }
    }
    let mut section = node.section();
    let headers = section.read("headers", |node| {
        const EXPECTED: &str = "an array of header names such as [\"User-Agent\"]";
        let name = |node: Node<'_>| {
            let text = node.str(EXPECTED)?;
            let name = text.parse::<HeaderName>().ok();
            name.map(|name| name.to_string())
                .or_else(|| node.wrong(EXPECTED))
        };
        let all = node.array(EXPECTED)?;
        all.into_iter().map(name).collect::<Option<Vec<_>>>()
    });
    let except = section.read("except", path_patterns);
    section.done();
    Some(Some(Logged {
        headers: headers.unwrap_or_default(),
        except: except.unwrap_or_default(),
    }))
}

/// Paths of requests, such as `/up` and `/hooks/*`.
pub(super) fn path_patterns(node: Node<'_>) -> Option<Vec<PathPattern>> {
    const EXPECTED: &str =
        "an array of paths such as [\"/up\", \"/hooks/*\"], in which `*` stands for anything";
    let pattern = |node: Node<'_>| {
        let text = node.str(EXPECTED)?;
        PathPattern::parse(text).or_else(|| node.wrong(EXPECTED))
    };
    node.array(EXPECTED)?.into_iter().map(pattern).collect()
}

fn changes(node: Node<'_>) -> Option<Changes> {
    let mut section = node.section();
    let remove = section.read("remove", |node| {
        let names = node.array("an array of header names such as [\"Server\"]")?;
        let name = |node: Node<'_>| {
            let text = node.str("a header name")?;
            is_name(text, &node).then(|| text.to_ascii_lowercase())
        };
        Some(names.into_iter().filter_map(name).collect())
    });
    let set = section.read("set", values);
    let add = section.read("add", values);
    section.done();
    Some(Changes {
        remove: remove.unwrap_or_default(),
        set: set.unwrap_or_default(),
        add: add.unwrap_or_default(),
    })
}

fn values(node: Node<'_>) -> Option<BTreeMap<String, String>> {
    const EXPECTED: &str =
        "a table of header names and values such as { X-Frame-Options = \"DENY\" }";
    let mut values = BTreeMap::new();
    for (name, node) in node.entries(EXPECTED)? {
        let named = is_name(name, &node);
        // It may be a secret.
        match node.value.get_ref() {
            DeValue::String(text) if is_value(text) => {
                if named {
                    values.insert(name.to_ascii_lowercase(), text.to_string());
                }
            }
            _ => {
                node.wrong_unshown::<()>("a string of visible ASCII characters");
            }
        }
    }
    Some(values)
}

fn is_name(name: &str, node: &Node<'_>) -> bool {
    let lower = name.to_ascii_lowercase();
    let good = HeaderName::from_bytes(name.as_bytes()).is_ok();
    if good && !FRAMING.contains(&lower.as_str()) {
        return true;
    }
    let why = match good {
        true => "cannot be changed: it belongs to the connection or frames the message",
        false => "is not the name of a header field",
    };
    let text = format!("`{}` {why}", name.escape_debug());
    node.file.report(node.start, text);
    false
}

fn is_value(text: &str) -> bool {
    HeaderValue::from_str(text).is_ok()
}

/// `proxy.redirects`: hosts that have no app, and where they lead.
pub(super) fn redirects(node: Node<'_>, claims: &mut Claims) -> Option<BTreeMap<String, Redirect>> {
    let nodes = node
        .array("an array such as [{ from = \"old.example.com\", to = \"https://example.com\" }]")?;
    let mut all = BTreeMap::new();
    for node in nodes {
        let mut section = node.section();
        let from = section.required("from", "the host that is asked for", |node| {
            claims.host(node, "/", "`proxy.redirects`")
        });
        let to = section.required("to", "the address that it leads to", |node| {
            const EXPECTED: &str = "an address such as \"https://new.example.com\"";
            let text = node.str(EXPECTED)?;
            let url = url::Url::parse(text).ok();
            let good = url.filter(|url| matches!(url.scheme(), "http" | "https"));
            match good.is_some_and(|url| url.username().is_empty()) && is_value(text) {
                true => Some(text.trim_end_matches('/').to_owned()),
                false => node.wrong(EXPECTED),
            }
        });
        let permanent = section.read("permanent", |node| node.boolean());
        let keep_path = section.read("keep_path", |node| node.boolean());
        section.done();
        if let (Some(from), Some(to)) = (from, to) {
            let redirect = Redirect {
                to,
                permanent: permanent.unwrap_or(true),
                keep_path: keep_path.unwrap_or(true),
            };
            all.insert(from, redirect);
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, load};

    fn read(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, text).unwrap();
        load(&path).map_err(|problems| problems.to_string())
    }

    fn app(proxy: &str) -> String {
        format!(
            "[apps.a]\nrepo = '/srv/a.git'\nport = 1\ndomains = ['a.test', 'www.a.test', 'b\u{fc}cher.test']\n\
             [apps.a.proxy]\n{proxy}\n"
        )
    }

    #[test]
    fn what_is_not_set_is_absent_and_what_is_is_read() {
        let of = |text: &str| {
            let config = read(&app(text)).unwrap();
            let app = config.apps.into_values().next().unwrap();
            (app.domains.clone(), app.proxy.front.clone())
        };
        assert_eq!(of("").1, None);
        let (domains, front) = of(
            "canonical = 'B\u{fc}cher.test'\nhsts = true\ndeny = ['192.0.2.1']\n\
             rate_limit = { per = 'client', requests = 10, window = '1s' }\n\
             response_headers = { remove = ['Server'], set = { X-Frame-Options = 'DENY' } }",
        );
        assert_eq!(domains[2], "xn--bcher-kva.test");
        let front = front.unwrap();
        assert_eq!(front.canonical.as_deref(), Some("xn--bcher-kva.test"));
        assert_eq!(front.hsts.as_deref(), Some("max-age=31536000"));
        assert_eq!(front.rate_limit.unwrap().burst, 10);
        assert_eq!(front.response_headers.remove, ["server"]);
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, wrong) in [
            ("canonical = 'other.test'", "one of the app's own domains"),
            ("hsts = 'yes'", "max-age="),
            ("allow = []", "`apps.a.proxy.allow`"),
            ("max_connections = 0", "`apps.a.proxy.max_connections`"),
            ("access_log = 'x'", "or a table such as"),
            ("scope_cookie_paths = true", "needs `strip_path`"),
            ("buffer_requests = '1g'", "from \"4k\" to \"16m\""),
            (
                "access_log = { headers = ['a b'] }",
                "an array of header names",
            ),
            (
                "access_log = { except = ['up'] }",
                "`*` stands for anything",
            ),
            (
                "rate_limit = { requests = 1 }",
                "`apps.a.proxy.rate_limit.window` is missing",
            ),
            (
                "rate_limit = { per = 'app', requests = 1, window = '1s' }",
                "\"client\"",
            ),
            (
                "request_headers = { set = { Host = 'x' } }",
                "`Host` cannot be changed",
            ),
            (
                "request_headers = { set = { 'a b' = 'x' } }",
                "is not the name of a header field",
            ),
            (
                "response_headers = { add = { A = 1 } }",
                "`apps.a.proxy.response_headers.add.A`",
            ),
        ] {
            let said = read(&app(text)).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
    }

    #[test]
    fn a_host_that_redirects_belongs_to_no_app() {
        let text = "[proxy]\nredirects = [{ from = 'old.test', to = 'https://a.test/' }]\n";
        let config = read(text).unwrap();
        let redirect = &config.proxy.redirects["old.test"];
        assert_eq!(
            (redirect.to.as_str(), redirect.permanent),
            ("https://a.test", true)
        );
        let both = text.replace("old.test", "a.test") + &app("");
        let said = read(&both).unwrap_err();
        assert!(said.contains("`proxy.redirects`"), "{said}");
        let said = read("[proxy]\nredirects = [{ from = 'a.test', to = 'b.test' }]").unwrap_err();
        assert!(said.contains("`proxy.redirects[0].to`"), "{said}");
    }
}
