//! Who has which host name.

use std::collections::BTreeMap;

use super::file::{self, Node};

/// Which host names are taken, and by whom.
#[derive(Default)]
pub(super) struct Claims(BTreeMap<String, (String, usize)>);

impl Claims {
    /// A host name that nobody else has.
    pub fn host(&mut self, node: Node<'_>, owner: &str) -> Option<String> {
        let text = node.str("a host name such as \"hello.example.com\"")?;
        let host = match host(text) {
            Ok(host) => host,
            Err(expected) => return node.wrong(expected),
        };
        self.claim(node, host.clone(), &format!("the host `{host}`"), owner)?;
        Some(host)
    }

    /// Every host that no app names: the claim of an app without `domains`.
    pub fn every_other_host(&mut self, node: Node<'_>, owner: &str) -> Option<()> {
        let what = "every host that no app names (an app without `domains` does)";
        self.claim(node, String::new(), what, owner)
    }

    fn claim(&mut self, node: Node<'_>, key: String, what: &str, owner: &str) -> Option<()> {
        let line = file::place(node.file.text, node.start).0;
        if let Some((other, at)) = self.0.get(&key) {
            let text = match other == owner {
                true => format!("{what} is named twice by {owner}, first in line {at}"),
                false => format!("{owner} claims {what}, which {other} claims in line {at}"),
            };
            return node.report(format!("{text}: expected one owner"));
        }
        self.0.insert(key, (owner.to_owned(), line));
        Some(())
    }
}

/// A host name or IP address, lower case, ASCII; an error says what was expected.
fn host(text: &str) -> Result<String, &'static str> {
    if text.contains("://") || text.contains('/') {
        return Err("a host name alone, without `https://` and path");
    }
    if text.starts_with("*.") {
        return Err("one host name; wildcards are not supported");
    }
    if text.starts_with('[') {
        return match url::Host::parse(text) {
            Ok(host) => Ok(host.to_string()),
            Err(_) => Err("an IPv6 address in brackets"),
        };
    }
    if text.contains(':') {
        return Err("a host name alone, without a port (the ports stand in `[proxy]`)");
    }
    const EXPECTED: &str = "a host name such as \"hello.example.com\"";
    let text = text.strip_suffix('.').unwrap_or(text);
    match url::Host::parse(text) {
        // `1.2` would become an address of its own making.
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
