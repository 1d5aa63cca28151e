//! `run.volumes`: storage that outlives an app's containers.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use toml::de::DeValue;

use super::file::Node;
use super::grants::Grants;
use super::paths;

/// Storage that outlives the containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub source: VolumeSource,
    /// The absolute path in the container.
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A volume of the app, by the name that the app has for it.
    Named(String),
    /// A file or folder of this machine.
    Host(PathBuf),
}

const VOLUME: &str = "a volume such as \"data:/data\", or a table such as \
                      { host = \"/srv/data\", target = \"/data\", read_only = true }";

pub(super) fn volumes(
    node: Node<'_>,
    grants: &Grants<'_>,
    targets: &mut BTreeSet<String>,
) -> Option<Vec<Volume>> {
    let nodes = node.array(format!("an array of volumes, each {VOLUME}"))?;
    let each = nodes.into_iter().map(|node| volume(node, grants, targets));
    // Each is read before the first invalid one makes the result `None`.
    each.collect::<Vec<_>>().into_iter().collect()
}

fn volume(node: Node<'_>, grants: &Grants<'_>, targets: &mut BTreeSet<String>) -> Option<Volume> {
    if let DeValue::Table(_) = node.value.get_ref() {
        return volume_table(node, grants, targets);
    }
    let text = node.str(VOLUME)?;
    let (name, rest) = text.split_once(':').or_else(|| node.wrong(VOLUME))?;
    let (target, read_only) = match rest.split_once(':') {
        None => (rest, false),
        Some((target, "rw")) => (target, false),
        Some((target, "ro")) => (target, true),
        Some(_) => return node.wrong(VOLUME),
    };
    if name.contains(['/', '.']) {
        let expected = format!(
            "the name of a volume before the `:`; a path of this machine is written \
             {{ host = \"{}\", target = \"{}\" }}",
            name.escape_debug(),
            target.escape_debug()
        );
        return node.wrong(expected);
    }
    let source = VolumeSource::Named(volume_name(&node, name)?);
    let target = mount_point(&node, target, targets)?;
    Some(Volume {
        source,
        target,
        read_only,
    })
}

fn volume_table(
    node: Node<'_>,
    grants: &Grants<'_>,
    targets: &mut BTreeSet<String>,
) -> Option<Volume> {
    let mut section = node.section();
    let name = section.read("name", |node| {
        let text = node.str("the name of a volume")?;
        volume_name(&node, text).map(VolumeSource::Named)
    });
    let host = section.read("host", |node| host(node, grants).map(VolumeSource::Host));
    let target = section.required("target", "the path in the container", |node| {
        let text = node.str("an absolute path in the container")?;
        mount_point(&node, text, targets)
    });
    let read_only = section.read("read_only", |node| node.boolean());
    if section.has("name") == section.has("host") {
        let which = section.key("host");
        section.report(format!(
            "`{which}` and `name`: expected one of them, a path of this machine or the name of a volume"
        ));
    }
    section.done();
    Some(Volume {
        source: name.or(host)?,
        target: target?,
        read_only: read_only.unwrap_or(false),
    })
}

/// Part of the engine's name for it, so the rules are those of an app's name, and underscores.
fn volume_name(node: &Node<'_>, text: &str) -> Option<String> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    let named = (1..=40).contains(&text.len())
        && text.bytes().all(good)
        && !text.starts_with(['-', '_'])
        && !text.ends_with(['-', '_']);
    match named {
        true => Some(text.to_owned()),
        false => node.wrong("the name of a volume: 1 to 40 of a-z, 0-9, `-` and `_` in between"),
    }
}

/// A path of this machine below one that may be mounted. What it leads to is looked at before each
/// container is made.
fn host(node: Node<'_>, grants: &Grants<'_>) -> Option<PathBuf> {
    let text = node.str("an absolute path of this machine")?;
    let up = Path::new(text).components();
    if !text.starts_with('/') || up.into_iter().any(|part| part == Component::ParentDir) {
        return node.wrong("an absolute path of this machine, without `..`");
    }
    let found = paths::on_this_machine(Path::new("/"), text);
    let found = found
        .or_else(|expected| node.wrong(expected).ok_or(()))
        .ok()?;
    if grants.is_socket(&found) {
        return grants.allow(&node, found);
    }
    let binds = grants.binds;
    if binds.is_empty() {
        return node.wrong(
            "a path below one of `docker.allow_binds`, which names none: add for example \
             `allow_binds = [\"/srv\"]` to `[docker]`",
        );
    }
    if !binds.iter().any(|allowed| found.starts_with(allowed)) {
        let allowed = binds.iter().map(|it| format!("`{}`", it.display()));
        let allowed = allowed.collect::<Vec<_>>().join(", ");
        return node.wrong(format!(
            "a path below one of `docker.allow_binds` ({allowed})"
        ));
    }
    Some(found)
}

/// An absolute path in the container at which nothing else is mounted.
pub(super) fn mount_point(
    node: &Node<'_>,
    text: &str,
    targets: &mut BTreeSet<String>,
) -> Option<String> {
    const EXPECTED: &str = "an absolute path in the container, such as \"/data\"";
    let parts: Vec<&str> = text
        .split('/')
        .filter(|it| !matches!(*it, "" | "."))
        .collect();
    let path = format!("/{}", parts.join("/"));
    let bad = |c: char| c.is_control() || ":,".contains(c);
    if !text.starts_with('/') || parts.is_empty() || parts.contains(&"..") || text.contains(bad) {
        return node.wrong(EXPECTED);
    }
    if ["proc", "sys", "dev"].contains(&parts[0]) && path != "/dev/shm" {
        return node.wrong(format!("{EXPECTED}, outside of /proc, /sys and /dev"));
    }
    if !targets.insert(path.clone()) {
        return node.wrong(format!(
            "a path at which nothing else is mounted; `{path}` is taken"
        ));
    }
    Some(path)
}
