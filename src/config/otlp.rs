//! `[agent.otlp]`: where traces of deployments, and of some of the requests, are sent.

use std::collections::BTreeMap;

use http::{HeaderName, Uri, header};
use toml::de::DeValue;

use super::Secret;
use super::file::Node;
use super::values::secret;

/// The path of traces below a collector's address (OTLP/HTTP).
const TRACES: &str = "/v1/traces";
/// Of a million.
const ALL: f64 = 1e6;

/// A collector that speaks OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// Where traces go, with the path.
    pub endpoint: Uri,
    /// Header fields that authorize the agent.
    pub headers: BTreeMap<String, Secret>,
    /// Of a million requests, how many are traced.
    pub sample: u32,
}

pub(super) fn read(node: Node<'_>) -> Option<Otlp> {
    let mut section = node.section();
    let endpoint = section.required("endpoint", EXPECTED, endpoint);
    let headers = section.read("headers", headers);
    let sample = section.read("sample", |node| {
        let share = node.float().filter(|share| (0.0..=1.0).contains(share));
        share.or_else(|| node.wrong("the part of all requests that is traced, from 0 to 1"))
    });
    section.done();
    Some(Otlp {
        endpoint: endpoint?,
        headers: headers.unwrap_or_default(),
        sample: (sample.unwrap_or_default() * ALL).ceil() as u32,
    })
}

const EXPECTED: &str = "a collector's address such as \"http://127.0.0.1:4318\", without user name, password and query; \
                        traces go to /v1/traces below it";

fn endpoint(node: Node<'_>) -> Option<Uri> {
    let DeValue::String(text) = node.value.get_ref() else {
        return node.wrong_unshown(EXPECTED);
    };
    let uri: Option<Uri> = text.parse().ok();
    let uri = uri.filter(|uri| {
        let host = uri.host().is_some_and(|host| !host.is_empty());
        let user = uri.authority().is_some_and(|it| it.as_str().contains('@'));
        let http = matches!(uri.scheme_str(), Some("http" | "https"));
        http && host && !user && uri.query().is_none() && !text.contains('#')
    });
    let base = text.trim_end_matches('/');
    let whole = match base.ends_with(TRACES) {
        true => base.to_owned(),
        false => format!("{base}{TRACES}"),
    };
    let whole = uri.and_then(|_| whole.parse().ok());
    // It may hold a password.
    whole.or_else(|| node.wrong_unshown(EXPECTED))
}

fn headers(node: Node<'_>) -> Option<BTreeMap<String, Secret>> {
    const TAKEN: [HeaderName; 5] = [
        header::HOST,
        header::CONTENT_TYPE,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
    ];
    let mut all = BTreeMap::new();
    let expected = "header fields and where to read them from, such as { authorization = { env = \"OTLP_AUTHORIZATION\" } }";
    for (name, node) in node.entries(expected)? {
        match name.parse::<HeaderName>() {
            Ok(name) if TAKEN.contains(&name) => {
                let text = format!("`{name}` is set by Cutover itself");
                node.file.report(node.start, text);
            }
            Ok(name) => {
                all.extend(secret(node).map(|secret| (name.to_string(), secret)));
            }
            Err(_) => {
                let shown = name.escape_debug();
                let text = format!("`{shown}` is not the name of a header field");
                node.file.report(node.start, text);
            }
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn load(otlp: &str) -> Result<Option<Otlp>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, format!("[agent.otlp]\n{otlp}")).unwrap();
        let config = config::load(&path);
        config
            .map(|config| config.agent.otlp)
            .map_err(|problems| problems.to_string())
    }

    #[test]
    fn traces_go_below_the_collector_s_address() {
        for (endpoint, whole) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            (
                "https://otlp.example.com/otlp",
                "https://otlp.example.com/otlp/v1/traces",
            ),
            ("http://[::1]:4318/v1/traces", "http://[::1]:4318/v1/traces"),
        ] {
            let otlp = load(&format!("endpoint = '{endpoint}'")).unwrap().unwrap();
            assert_eq!(otlp.endpoint.to_string(), whole);
            assert_eq!((otlp.sample, otlp.headers.len()), (0, 0));
        }
        let sampled = load(
            "endpoint = 'http://c:1'\nsample = 0.001\nheaders = { X-Key = { env = 'OTLP_KEY' } }",
        );
        let sampled = sampled.unwrap().unwrap();
        assert_eq!(sampled.sample, 1000);
        assert_eq!(sampled.headers["x-key"], Secret::Env("OTLP_KEY".into()));
    }

    #[test]
    fn every_mistake_is_reported() {
        let error = load(
            "endpoint = 'http://ada:hunter2@c'\nsample = 1.5\nratio = 1\n\
             headers = { 'a b' = { env = 'A' }, Host = { env = 'B' }, x-key = 'hunter2' }",
        )
        .unwrap_err();
        for word in [
            "`agent.otlp.endpoint`",
            "`agent.otlp.sample`",
            "unknown key `ratio`",
            "`a b` is not the name",
            "`host` is set by Cutover",
            "`agent.otlp.headers.x-key`",
        ] {
            assert!(error.contains(word), "{word}:\n{error}");
        }
        assert!(!error.contains("hunter2"), "{error}");
        for wrong in [
            "''",
            "'c:4318'",
            "'ftp://c'",
            "'http://'",
            "'http://c/?k=v'",
            "7",
        ] {
            assert!(load(&format!("endpoint = {wrong}")).is_err(), "{wrong}");
        }
        assert!(
            load("")
                .unwrap_err()
                .contains("`agent.otlp.endpoint` is missing")
        );
    }
}
