//! `[apps]`: a section for each app, and what they say of each other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::app::app;
use super::claims::Claims;
use super::file::{File, Node};
use super::{App, Docker, similar};
use crate::ids::AppName;

/// The name of another app, whose app says it, and where.
type Told<'a> = (AppName, AppName, &'a File<'a>, usize);

/// `docker`: what apps may have of this machine.
pub(super) fn apps(
    node: Node<'_>,
    claims: &mut Claims,
    docker: &Docker,
) -> Option<BTreeMap<AppName, Arc<App>>> {
    let mut apps = BTreeMap::new();
    let mut renamed = Vec::new();
    let mut linked = Vec::new();
    for (name, node) in node.entries("a section for each app, `[apps.NAME]`")? {
        let parsed = name.parse::<AppName>();
        if let Err(error) = &parsed {
            node.file.report(node.start, error.to_string());
        }
        // Read even if the name is invalid, so that mistakes inside are reported in the same run.
        let file = node.file;
        let mut links_at = Vec::new();
        if let Some((app, was_at)) = app(name, parsed.ok(), node, claims, docker, &mut links_at) {
            let links = app.run.links.iter().cloned().zip(links_at);
            linked.extend(links.map(|(to, at)| (to, app.name.clone(), file, at)));
            if let Some(was) = app.was.clone() {
                renamed.push((was, app.name.clone(), file, was_at));
            }
            apps.insert(app.name.clone(), Arc::new(app));
        }
    }
    renames(&renamed, &apps);
    links(linked, &apps);
    Some(apps)
}

/// Former names that are an app's own, an app's of now, or given up by two.
fn renames(renamed: &[Told<'_>], apps: &BTreeMap<AppName, Arc<App>>) {
    for (index, (was, name, file, at)) in renamed.iter().enumerate() {
        let other = renamed[..index].iter().find(|other| other.0 == *was);
        let key = format!("`apps.{name}.was`");
        let problem = match other {
            _ if was == name => format!("{key} is the app's own name: expected its former one"),
            _ if apps.contains_key(was) => format!(
                "{key} is `{was}`, which is an app of this file: expected a name that no app has \
                 any more (of two renames that meet, reload the first before the second)"
            ),
            Some((_, other, ..)) => {
                format!("{key} is `{was}`, as `apps.{other}.was` is: expected one successor")
            }
            None => continue,
        };
        file.report(*at, problem);
    }
}

/// Links to what is no app, or none that serves.
fn links(linked: Vec<Told<'_>>, apps: &BTreeMap<AppName, Arc<App>>) {
    for (to, from, file, at) in linked {
        let problem = match apps.get(&to).map(|app: &Arc<App>| app.port) {
            Some(Some(_)) => continue,
            Some(None) => "which has no `port` and takes no requests".to_owned(),
            None => {
                let others = apps.keys().filter(|name| **name != from);
                let meant = similar::nearest(to.as_str(), others.map(AppName::as_str));
                let meant = meant.map_or(String::new(), |it| format!(" (did you mean `{it}`?)"));
                format!("which is not an app in this file{meant}")
            }
        };
        let key = format!("`apps.{from}.run.links`");
        file.report(
            at,
            format!("{key} names `{to}`, {problem}: expected an app that serves"),
        );
    }
}
