//! Every name that is to be served over TLS, and how it stands with its certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::files::Files;
use super::leaf::{self, Leaf};
use super::schedule::{due, renewal};
use crate::config::Config;
use crate::store::certificates::State;
use crate::store::now;

/// One sentence for each name that has no certificate and gets none, and for each file of the owner's
/// that cannot be used. Blocks.
pub fn warnings(config: &Config) -> Vec<String> {
    let (names, broken) = all(config, &BTreeMap::new());
    let names = names.into_iter().filter(|it| it.due.is_none());
    let names = names.filter_map(|it| Some(format!("`{}`: {}", it.name, it.problem?)));
    let broken = broken.into_iter();
    let broken = broken.map(|(path, why)| format!("the certificate `{}`: {why}", path.display()));
    names.chain(broken).collect()
}

/// One name.
#[derive(Debug, Clone)]
pub struct Name {
    pub name: String,
    /// Where its certificate comes from.
    pub source: Source,
    /// The certificate that is served.
    pub leaf: Option<Leaf>,
    pub state: State,
    /// When a new one is ordered, in milliseconds since 1970; `None`: never, as things are.
    pub due: Option<i64>,
    /// What is wrong, and what to do.
    pub problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of the owner's.
    File(PathBuf),
    Ordered,
    /// There is none, and none is ordered.
    Nowhere,
    /// It was ordered for a name that is no longer in deploy.toml. An app that has left the file may still
    /// serve it, so it stays until it has expired.
    Unused,
}

/// A file of the owner's that cannot be used, and why.
pub type Broken = (PathBuf, String);

/// All names of the configuration, and the owner's files that cannot be used. Reads the files: blocks.
pub fn all(config: &Config, states: &BTreeMap<String, State>) -> (Vec<Name>, Vec<Broken>) {
    let files = Files::new(&config.agent.data_dir, config.proxy.certificates.clone());
    let (own, broken) = owned(files.own());
    let state = |name: &str| states.get(name).cloned().unwrap_or_default();
    let names = wanted(config, states).into_iter();
    let names = names.map(|name| of(config, &files, &own, name, state(name)));
    (names.collect(), broken)
}

/// The names of the configuration, and those that its apps were asked about.
fn wanted<'a>(config: &'a Config, states: &'a BTreeMap<String, State>) -> BTreeSet<&'a str> {
    let mut names = config.certified_names();
    let asks = |app: &str| {
        let mut apps = config.apps.values();
        apps.any(|it| it.name.as_str() == app && it.domains_ask.is_some())
    };
    if config.proxy.https.is_some() {
        let on_demand = (states.iter()).filter(|(_, it)| it.app.as_deref().is_some_and(asks));
        names.extend(on_demand.map(|(name, _)| name.as_str()));
    }
    names
}

/// The certificates that were ordered for names that nobody wants any more. Blocks.
pub fn unused(config: &Config, states: &BTreeMap<String, State>) -> Vec<Name> {
    let unused = left(config, states).into_iter().map(|(_, leaf)| Name {
        name: leaf.names.first().cloned().unwrap_or_default(),
        source: Source::Unused,
        leaf: Some(leaf),
        state: State::default(),
        due: None,
        problem: None,
    });
    unused.collect()
}

/// Removes those of them that have expired, and gives their names. Blocks.
pub fn put_away(config: &Config, states: &BTreeMap<String, State>, now: i64) -> Vec<String> {
    let expired = left(config, states).into_iter();
    let expired = expired.filter(|(_, leaf)| leaf.not_after <= now);
    let removed = expired.filter(|(path, _)| std::fs::remove_file(path).is_ok());
    removed.flat_map(|(_, leaf)| leaf.names).collect()
}

fn left(config: &Config, states: &BTreeMap<String, State>) -> Vec<(PathBuf, Leaf)> {
    let files = Files::new(&config.agent.data_dir, config.proxy.certificates.clone());
    let wanted = wanted(config, states);
    let (ordered, _) = owned(files.ordered());
    let is_wanted = |leaf: &Leaf| leaf.names.iter().any(|own| wanted.contains(own.as_str()));
    let mut left: Vec<_> = ordered
        .into_iter()
        .filter(|(_, leaf)| !is_wanted(leaf))
        .collect();
    left.sort_by(|(a, _), (b, _)| a.cmp(b));
    left
}

fn of(config: &Config, files: &Files, own: &[(PathBuf, Leaf)], name: &str, state: State) -> Name {
    let owned = own.iter().filter(|(_, leaf)| leaf.is_for(name));
    // The one that the proxy serves: an exact name before a wildcard, and of several the last.
    let owned = owned.max_by_key(|(path, leaf)| (leaf.names.iter().any(|own| own == name), path));
    if let Some((path, leaf)) = owned {
        let expired = leaf.not_after <= now();
        return Name {
            name: name.to_owned(),
            source: Source::File(path.clone()),
            problem: expired.then(|| {
                format!(
                    "the certificate `{}` has expired: replace it",
                    path.display()
                )
            }),
            leaf: Some(leaf.clone()),
            state: State::default(),
            due: None,
        };
    }
    let leaf = leaf::read(&files.certificate(name)).ok();
    let acme = config.proxy.acme.as_ref();
    let cannot = match acme {
        Some(acme) => acme.cannot(name).map(str::to_owned),
        None => Some(
            "there is no certificate for this name in the folder `proxy.certificates`, and \
             `proxy.acme` is off"
                .to_owned(),
        ),
    };
    let due = match (acme, &cannot) {
        (Some(acme), None) => Some(due(&state, leaf.as_ref(), &acme.directory)),
        _ => None,
    };
    Name {
        name: name.to_owned(),
        source: match leaf.is_some() || due.is_some() {
            true => Source::Ordered,
            false => Source::Nowhere,
        },
        problem: cannot.or_else(|| problem(leaf.as_ref(), &state)),
        leaf,
        state,
        due,
    }
}

/// What people should know of a name that certificates are ordered for.
fn problem(leaf: Option<&Leaf>, state: &State) -> Option<String> {
    let error = state.error.as_ref()?;
    Some(match leaf {
        Some(leaf) if leaf.not_after <= now() => format!("its certificate has expired: {error}"),
        Some(_) => format!("its certificate is not renewed yet: {error}"),
        None => format!("it has no certificate yet: {error}"),
    })
}

/// When a certificate that is served is renewed, in milliseconds since 1970.
pub fn renews_at(name: &Name) -> Option<i64> {
    match name.source {
        Source::Ordered if name.due.is_some() => {
            (name.leaf.as_ref()).map(|leaf| renewal(&name.state, leaf))
        }
        _ => None,
    }
}

/// Where the authority explains when it wants it renewed.
pub fn renewal_explanation(name: &Name) -> Option<&str> {
    let leaf = name.leaf.as_ref().filter(|_| renews_at(name).is_some())?;
    let said = name.state.renewal.as_ref()?;
    said.why
        .as_deref()
        .filter(|_| Some(&said.of) == leaf.id.as_ref())
}

/// The owner's certificates, and those that cannot be used.
fn owned(folder: &Path) -> (Vec<(PathBuf, Leaf)>, Vec<Broken>) {
    let (mut good, mut broken) = (Vec::new(), Vec::new());
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return (good, broken),
        Err(error) => {
            broken.push((folder.to_owned(), error.to_string()));
            return (good, broken);
        }
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension() == Some("pem".as_ref()) {
            match leaf::read(&path) {
                Ok(leaf) => good.push((path, leaf)),
                Err(why) => broken.push((path, why)),
            }
        }
    }
    broken.sort();
    (good, broken)
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;

    #[test]
    fn what_was_ordered_for_a_name_that_has_left_the_file_goes_when_it_has_expired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let text = "[agent]\ndata_dir = 'data'\n[proxy]\nhttps = '127.0.0.1:1'\n\
                    [apps.a]\nrepo = '/srv/a.git'\nport = 1\ndomains = ['a.test', '*.b.test']\n";
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap();
        let files = Files::new(&config.agent.data_dir, None);
        for name in ["a.test", "*.b.test", "gone.test", "*.gone.test"] {
            let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            let text = made.signing_key.serialize_pem() + &made.cert.pem();
            files::write(&files.certificate(name), text.as_bytes()).unwrap();
        }
        let names = |all: Vec<Name>| all.into_iter().map(|it| it.name).collect::<Vec<_>>();
        let none = BTreeMap::new();
        assert_eq!(names(unused(&config, &none)), ["*.gone.test", "gone.test"]);
        let good = put_away(&config, &none, now());
        assert!(good.is_empty(), "they are still good");
        let gone = ["*.gone.test", "gone.test"];
        assert_eq!(put_away(&config, &none, i64::MAX), gone);
        assert!(unused(&config, &none).is_empty());
        assert!(files.certificate("a.test").exists() && files.certificate("*.b.test").exists());
    }
}
