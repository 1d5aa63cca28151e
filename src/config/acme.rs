//! `proxy.acme`: certificates that are ordered from an authority, and for which names.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::file::{Node, Section};
use super::values::{duration, line, path, secret};
use super::{Config, Secret};

/// Let's Encrypt, the authority unless another one is named.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The authority that certificates are ordered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// Where the authority sends its notices, if anywhere.
    pub email: Option<String>,
    /// The address of its directory.
    pub directory: String,
    /// The certificates by which the authority's own server is trusted besides those of the system, in
    /// PEM.
    pub directory_ca: Option<PathBuf>,
    /// The account at the authority that the one made here belongs to.
    pub account: Option<ExternalAccount>,
    /// For wildcards.
    pub dns: Option<DnsCommand>,
}

/// An external account binding (RFC 8555, 7.3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    pub id: String,
    /// In base64url, as authorities show it.
    pub key: Secret,
}

/// A program that sets and removes TXT records. Its arguments are followed by the record's name and
/// value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsCommand {
    pub add: Vec<String>,
    pub remove: Vec<String>,
    /// How long a record takes to reach every name server.
    pub wait: Duration,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            email: None,
            directory: LETS_ENCRYPT.into(),
            directory_ca: None,
            account: None,
            dns: None,
        }
    }
}

impl Config {
    /// The names that are to have a certificate, whether from the owner's files or ordered.
    pub fn certified_names(&self) -> BTreeSet<&str> {
        let apps = self.apps.values().flat_map(|app| &app.domains);
        let names = apps
            .chain(&self.agent.domain)
            .chain(self.proxy.redirects.keys());
        let names = names.map(String::as_str);
        match self.proxy.https {
            Some(_) => names.filter(|name| !is_address(name)).collect(),
            None => BTreeSet::new(),
        }
    }
}

impl Acme {
    /// Why no certificate can be ordered for a name, and what to do.
    pub fn cannot(&self, name: &str) -> Option<&'static str> {
        if name.starts_with("*.") && self.dns.is_none() {
            return Some(
                "a wildcard is certified through DNS: set `proxy.acme.dns`, or put a certificate into the \
                 folder `proxy.certificates`",
            );
        }
        let name = name.trim_start_matches("*.");
        if self.directory == LETS_ENCRYPT && is_reserved(name) {
            return Some(
                "no public authority certifies this name: put a certificate into the folder \
                 `proxy.certificates`, or set `proxy.acme.directory` to an authority of your own",
            );
        }
        None
    }
}

fn is_address(name: &str) -> bool {
    name.starts_with('[') || name.parse::<IpAddr>().is_ok()
}

/// Whether a name is never that of a public server (RFC 2606, RFC 6761, RFC 6762, RFC 8375).
fn is_reserved(name: &str) -> bool {
    const LAST: [&str; 9] = [
        "test",
        "example",
        "invalid",
        "localhost",
        "local",
        "internal",
        "lan",
        "onion",
        "home.arpa",
    ];
    const WHOLE: [&str; 3] = ["example.com", "example.net", "example.org"];
    let below = |parent: &&str| {
        let rest = name.strip_suffix(*parent);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !name.contains('.') || LAST.iter().chain(&WHOLE).any(below)
}

/// Reads `acme`. With TLS it is on unless it is `false`.
pub(super) fn read(section: &mut Section<'_>, https: bool) -> Option<Acme> {
    let default = || https.then(Acme::default);
    let Some(node) = section.node("acme") else {
        return default();
    };
    match node.value.get_ref() {
        DeValue::Boolean(false) => None,
        DeValue::Boolean(true) | DeValue::Table(_) if !https => node
            .report("`proxy.acme` needs `proxy.https`: expected the address for HTTPS too".into()),
        DeValue::Boolean(true) => default(),
        DeValue::Table(_) => Some(acme(node.section())),
        _ => node.wrong("`false`, or a table such as { email = \"ops@example.com\" }"),
    }
}

fn acme(mut section: Section<'_>) -> Acme {
    let email = section.read("email", email);
    let directory = section.read("directory", directory);
    let directory_ca = section.read("directory_ca", path);
    let account = section.read("account", |node| {
        let mut section = node.section();
        let id = section.required("id", "the account's key identifier", line);
        let key = section.required("key", "where to read the account's HMAC key from", secret);
        section.done();
        Some(ExternalAccount { id: id?, key: key? })
    });
    let dns = section.read("dns", dns);
    section.done();
    Acme {
        email,
        directory: directory.unwrap_or(LETS_ENCRYPT.into()),
        directory_ca,
        account,
        dns,
    }
}

fn email(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "an e-mail address such as \"ops@example.com\"";
    let text = node.str(EXPECTED)?;
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"<>,;:\"@?&".contains(c);
    let good = text.split_once('@').is_some_and(|(user, host)| {
        let part = |text: &str| !text.is_empty() && text.chars().all(plain);
        part(user) && part(host) && host.contains('.') && !host.starts_with('.')
    });
    match good {
        true => Some(text.to_owned()),
        false => node.wrong(EXPECTED),
    }
}

fn directory(node: Node<'_>) -> Option<String> {
    const EXPECTED: &str = "the `https://` address of an ACME directory";
    let text = node.str(EXPECTED)?;
    let Ok(url) = url::Url::parse(text) else {
        return node.wrong(EXPECTED);
    };
    let is_here = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" if url.host().is_some() => Some(text.to_owned()),
        "http" if is_here => Some(text.to_owned()),
        "http" => node.wrong(format!(
            "{EXPECTED}: without TLS anybody could answer in its place"
        )),
        _ => node.wrong(EXPECTED),
    }
}

fn dns(node: Node<'_>) -> Option<DnsCommand> {
    let mut section = node.section();
    const EXPECTED: &str = "a program and its arguments such as [\"/etc/cutover/dns\", \"add\"]";
    let add = section.required("add", EXPECTED, |node| command(node, EXPECTED));
    let remove = section.required("remove", EXPECTED, |node| command(node, EXPECTED));
    let wait = section.read("wait", duration);
    section.done();
    Some(DnsCommand {
        add: add?,
        remove: remove?,
        wait: wait.unwrap_or(Duration::from_secs(10)),
    })
}

fn command(node: Node<'_>, expected: &'static str) -> Option<Vec<String>> {
    let words = node.array(expected)?;
    let word = |node: &Node<'_>| match node.str(expected)? {
        text if text.contains('\0') => node.wrong(expected),
        text => Some(text.to_owned()),
    };
    let words: Vec<String> = words.iter().map(word).collect::<Option<_>>()?;
    match words.first().is_some_and(|program| !program.is_empty()) {
        true => Some(words),
        false => node.wrong(expected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn read(proxy: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        std::fs::write(&path, format!("[proxy]\n{proxy}\n")).unwrap();
        load(&path).map_err(|problems| problems.to_string())
    }

    #[test]
    fn with_tls_certificates_are_ordered_unless_the_owner_says_no() {
        let of = |text: &str| read(text).unwrap().proxy.acme;
        assert_eq!(of(""), None);
        assert_eq!(of("acme = false"), None);
        let https = "https = '127.0.0.1:443'\n";
        assert_eq!(of(https), Some(Acme::default()));
        assert_eq!(of(&format!("{https}acme = true")), Some(Acme::default()));
        assert_eq!(of(&format!("{https}acme = false")), None);
        let own = of(&format!(
            "{https}acme = {{ email = 'ops@acme.io', directory = 'http://127.0.0.1:14000/dir', \
             dns = {{ add = ['/a', 'x'], remove = ['/b'], wait = '1s' }} }}"
        ));
        let own = own.unwrap();
        assert_eq!(own.email.as_deref(), Some("ops@acme.io"));
        assert_eq!(own.dns.unwrap().add, ["/a", "x"]);
    }

    #[test]
    fn each_mistake_is_named() {
        for (text, wrong) in [
            ("email = 'ops'", "3:18: `proxy.acme.email` is "),
            ("email = 'a b@c.d'", "`proxy.acme.email`"),
            ("directory = 'http://ca.acme.io/dir'", "without TLS"),
            ("directory = 'ca'", "`proxy.acme.directory`"),
            (
                "dns = { add = ['x'] }",
                "`proxy.acme.dns.remove` is missing",
            ),
            ("dns = { add = [], remove = ['x'] }", "`proxy.acme.dns.add`"),
            (
                "account = { id = 'x' }",
                "`proxy.acme.account.key` is missing",
            ),
            ("mail = 'x'", "did you mean `email`?"),
        ] {
            let all = format!("https = '127.0.0.1:443'\nacme = {{ {text} }}");
            let said = read(&all).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
        let said = read("acme = { email = 'ops@acme.io' }").unwrap_err();
        assert!(said.contains("needs `proxy.https`"), "{said}");
    }

    #[test]
    fn a_public_authority_is_not_asked_for_what_it_cannot_certify() {
        let acme = Acme::default();
        for name in [
            "hello.test",
            "localhost",
            "a.example.com",
            "nas.local",
            "host",
        ] {
            assert!(acme.cannot(name).is_some(), "{name}");
        }
        for name in ["acme.io", "myexample.com", "contest.io"] {
            assert_eq!(acme.cannot(name), None, "{name}");
        }
        assert!(acme.cannot("*.acme.io").is_some());
        let own = Acme {
            directory: "https://ca.internal/dir".into(),
            ..Acme::default()
        };
        assert_eq!(own.cannot("hello.test"), None);
    }
}
