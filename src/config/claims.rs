//! Which app, or the agent itself, owns which host name.

use std::collections::BTreeMap;

use super::file::{self, Node};

/// Maps a host name and path to the owner that claimed it, and to the line of that claim.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<(String, String), (String, usize)>);

impl Claims {
    /// Claims the host name in `node`. If it is invalid, or already claimed under the same path,
    /// that is reported and the result is `None`.
    pub fn host(&mut self, node: Node<'_>, path: &str, owner: &str) -> Option<String> {
        let text = node.str("a host name such as \"hello.example.com\"")?;
        let host = match host(text) {
            Ok(host) => host,
            Err(expected) => return node.wrong(expected),
        };
        self.claim(node, &host, path, &format!("the host `{host}`"), owner)?;
        Some(host)
    }

    /// Claims every host that no app names, as an app without `domains` does.
    pub fn every_other_host(&mut self, node: Node<'_>, path: &str, owner: &str) -> Option<()> {
        let what = "every host that no app names (the default without `domains`)";
        self.claim(node, "", path, what, owner)
    }

    fn claim(
        &mut self,
        node: Node<'_>,
        host: &str,
        path: &str,
        what: &str,
        owner: &str,
    ) -> Option<()> {
        let under = match path {
            "/" => String::new(),
            path => format!(" under `{path}`"),
        };
        let what = format!("{what}{under}");
        let key = (host.to_owned(), path.to_owned());
        let line = file::place(node.file.text, node.start).0;
        if let Some((other, at)) = self.0.get(&key) {
            let text = match other == owner {
                true => format!("{what} is named twice by {owner}, first on line {at}"),
                false => format!("{owner} claims {what}, which {other} claims on line {at}"),
            };
            return node.report(format!("{text}: expected a single owner"));
        }
        self.0.insert(key, (owner.to_owned(), line));
        Some(())
    }
}

/// Normalizes a host name, with or without `*.` in front, or an IP address to lower-case ASCII; the
/// error says what was expected.
pub(super) fn host(text: &str) -> Result<String, &'static str> {
    if text.contains("://") || text.contains('/') {
        return Err("a host name alone, without `https://` and path");
    }
    if let Some(parent) = text.strip_prefix("*.") {
        const EXPECTED: &str = "a wildcard such as \"*.example.com\"";
        // The parent must be a name of more than one label: `*.com` and `*.1.2.3.4` are mistakes.
        return match host(parent) {
            Ok(name) if name.contains('.') && !name.starts_with('[') && !is_address(&name) => {
                Ok(format!("*.{name}"))
            }
            _ => Err(EXPECTED),
        };
    }
    if text.starts_with('[') {
        return match url::Host::parse(text) {
            Ok(host) => Ok(host.to_string()),
            Err(_) => Err("an IPv6 address in brackets"),
        };
    }
    if text.contains(':') {
        return Err("a host name without a port (ports are set in `[proxy]`)");
    }
    const EXPECTED: &str = "a host name such as \"hello.example.com\"";
    let text = text.strip_suffix('.').unwrap_or(text);
    match url::Host::parse(text) {
        // Accepted only in full: the URL parser would turn `1.2` into the address `1.0.0.2`.
        Ok(url::Host::Ipv4(address)) if address.to_string() == text => Ok(text.to_owned()),
        Ok(url::Host::Domain(name)) => {
            let label = |label: &str| {
                (1..=63).contains(&label.len())
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            };
            match name.len() <= 253 && name.split('.').all(label) {
                true => Ok(name),
                false => Err(EXPECTED),
            }
        }
        _ => Err(EXPECTED),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}
