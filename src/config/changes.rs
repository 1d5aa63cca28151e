//! The differences between two versions of deploy.toml, by key. Values are not shown, because some of them
//! are secret; the audit log gets those that cannot be.

use serde::Serialize;
use toml::{Table, Value};

/// One key whose value has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Change {
    /// The key, such as `apps.hello.repo`; `apps.hello` for an app that was added or removed.
    #[schema(example = "apps.hello.repo")]
    pub key: String,
    #[schema(inline)]
    pub change: What,
    #[schema(inline)]
    pub applies: Applies,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Added,
    Removed,
    Changed,
}

/// When a change takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Applies {
    Now,
    /// With the next deployment: a release keeps the settings that it was created with.
    NextDeployment,
    /// After a restart: it concerns a listener, or something that a process opens only once.
    Restart,
}

/// The settings that the proxy reads only when it starts, or that the agent opens only once.
const AT_START: [&str; 11] = [
    "agent.listen",
    "agent.data_dir",
    "docker.host",
    "proxy.http",
    "proxy.https",
    "proxy.certificates",
    "proxy.trusted_proxies",
    "proxy.proxy_protocol",
    "proxy.access_log",
    "proxy.header_limit",
    "proxy.client_ip_header",
];

/// The keys and sections of an app that take effect with its next deployment.
const OF_A_DEPLOYMENT: [&str; 13] = [
    "test",
    "kind",
    "dir",
    "fallback",
    "immutable",
    "port",
    "protocol",
    "build",
    "health",
    "run",
    "processes",
    "procfile",
    "hooks",
];

/// The keys whose values are never secret, wherever they are but in [`USERS_OWN`].
const PUBLIC: [&str; 28] = [
    "allow",
    "bake",
    "branch",
    "branches",
    "cpus",
    "deadline",
    "deny",
    "domain",
    "domains",
    "drain",
    "fallback",
    "http",
    "https",
    "interval",
    "keep_releases",
    "kind",
    "listen",
    "maintenance",
    "max_body",
    "memory",
    "path",
    "port",
    "replicas",
    "schedule",
    "stop_grace",
    "strategy",
    "tags",
    "timeout",
];
/// Sections whose keys are names that somebody has chosen.
const USERS_OWN: [&str; 4] = ["args", "env", "labels", "secrets"];

/// The keys that differ, sorted. Text that is not valid TOML counts as having no keys.
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let mut all = Vec::new();
    each(old, new, &mut |path, what, _, _| {
        all.push(change(path, what))
    });
    all
}

/// What the keys that differ were and are, without those that may be secret.
pub fn values(old: &str, new: &str) -> serde_json::Value {
    let mut all = serde_json::Map::new();
    each(old, new, &mut |path, what, old, new| {
        let is_public = path
            .last()
            .is_some_and(|key| PUBLIC.contains(&key.as_str()))
            && !path.iter().any(|key| USERS_OWN.contains(&key.as_str()));
        if is_public {
            let values = serde_json::json!({ "before": old, "after": new });
            all.insert(change(path, what).key, values);
        }
    });
    all.into()
}

type Found<'a> = &'a mut dyn FnMut(&[String], What, Option<&Value>, Option<&Value>);

fn each(old: &str, new: &str, found: Found<'_>) {
    let read = |text: &str| text.parse::<Table>().unwrap_or_default();
    compare(&mut Vec::new(), &read(old), &read(new), found);
}

/// The keys that differ between the two versions and take effect only after a restart.
pub fn waiting_for_restart(old: &str, new: &str) -> Vec<Change> {
    let mut all = changes(old, new);
    all.retain(|change| change.applies == Applies::Restart);
    all
}

fn compare(path: &mut Vec<String>, old: &Table, new: &Table, found: Found<'_>) {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let mut keys: Vec<&String> = new.keys().chain(gone).collect();
    keys.sort();
    let empty = Table::new();
    for key in keys {
        path.push(key.clone());
        match (old.get(key), new.get(key)) {
            (old, new) if old == new => {}
            // An app is added or removed as a whole; in any other section each key is listed.
            (Some(_), None) if is_app(path) => found(path, What::Removed, None, None),
            (None, Some(_)) if is_app(path) => found(path, What::Added, None, None),
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(path, old, new, found),
            (Some(Value::Table(old)), None) => compare(path, old, &empty, found),
            (None, Some(Value::Table(new))) => compare(path, &empty, new, found),
            (None, new) => found(path, What::Added, None, new),
            (old, None) => found(path, What::Removed, old, None),
            (old, new) => found(path, What::Changed, old, new),
        }
        path.pop();
    }
}

fn is_app(path: &[String]) -> bool {
    path.len() == 2 && path[0] == "apps"
}

fn change(path: &[String], change: What) -> Change {
    let shown: Vec<String> = path.iter().map(|key| shown(key)).collect();
    let key = shown.join(".");
    let at_start = |known: &&str| {
        key.strip_prefix(*known)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let applies = match path {
        [apps, _, of_app, ..] if apps == "apps" => {
            match OF_A_DEPLOYMENT.contains(&of_app.as_str()) {
                true => Applies::NextDeployment,
                false => Applies::Now,
            }
        }
        _ if AT_START.iter().any(at_start) => Applies::Restart,
        _ => Applies::Now,
    };
    Change {
        key,
        change,
        applies,
    }
}

/// A key as it is written in TOML, quoted if necessary.
fn shown(key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => format!("\"{}\"", key.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(old: &str, new: &str) -> Vec<String> {
        let all = changes(old, new).into_iter();
        all.map(|c| format!("{} {:?} {:?}", c.key, c.change, c.applies))
            .collect()
    }

    #[test]
    fn each_key_is_named_and_no_value() {
        let old = "[proxy]\nhttp = '1:80'\n[apps.a]\nrepo = 'x'\nport = 1\n[apps.b]\nrepo = 'y'\n\
                   [apps.c.run.env]\n'odd.\\u001b' = '1'";
        let new = "[agent]\ndomain = 'd'\n[proxy]\nhttp = '2:80'\n[apps.a]\nrepo = 'z'\nport = 2\n\
                   deploy = { bake = '0s' }\n[apps.n]\nrepo = 'y'\n[apps.c]";
        assert_eq!(
            keys(old, new),
            [
                "agent.domain Added Now",
                "apps.a.deploy.bake Added Now",
                "apps.a.port Changed NextDeployment",
                "apps.a.repo Changed Now",
                "apps.b Removed Now",
                "apps.c.run.env.\"odd.\\\\u001b\" Removed NextDeployment",
                "apps.n Added Now",
                "proxy.http Changed Restart",
            ]
        );
    }

    #[test]
    fn only_values_that_cannot_be_secret_are_given() {
        let old =
            "[apps.a]\nrepo = 'https://u:pw@x'\nbranch = 'main'\n[apps.a.run.env]\nport = 'pw'";
        let new = "[apps.a]\nrepo = 'y'\nbranch = 'next'\n[apps.a.deploy]\nkeep_releases = 3\n\
                   [apps.a.run.env]\nport = 'pw2'";
        let expected = serde_json::json!({
            "apps.a.branch": { "before": "main", "after": "next" },
            "apps.a.deploy.keep_releases": { "before": null, "after": 3 },
        });
        assert_eq!(values(old, new), expected);
    }

    #[test]
    fn comments_order_and_form_make_no_difference() {
        let old = "[apps.a]\nport = 1\nrepo = 'x'\n[apps.a.run]\nenv = { A = '1' }";
        let new = "apps.a.repo = 'x' # new\napps.a.port = 0x1\napps.a.run.env.A = \"1\"";
        assert_eq!(keys(old, new), [""; 0]);
        let restart = waiting_for_restart("docker.host = 'a'", "agent.domain = 'd'");
        assert_eq!(restart.len(), 1);
    }
}
