//! What is to be built, in the words of BuildKit's Dockerfile frontend.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use bollard::moby::buildkit::v1::{CacheOptions, CacheOptionsEntry, SolveRequest};

use super::session;
use crate::engine::BuildSpec;

/// Arguments for the builder, which no step gets.
const INLINE_CACHE: &str = "BUILDKIT_INLINE_CACHE";
/// Engines that keep one manifest an image, such as all with graph drivers, ignore it.
const PROVENANCE: &str = "BUILDKIT_ATTEST_PROVENANCE";
const SBOM: &str = "BUILDKIT_ATTEST_SBOM";
/// Without the arguments and steps, whose values may be secret.
const LITTLE: &str = "mode=min";

/// The address that stands for the engine's machine, which only `POST /build` resolves.
const GATEWAY: &str = "host-gateway";

/// Why the builder is not told where its steps run.
pub(super) fn apart(spec: &BuildSpec<'_>, asks_for_files: bool) -> Option<&'static str> {
    if spec.keeps_cache || !spec.cache_from.is_empty() {
        // The place is part of what a step is known by.
        Some(
            "with `build.cache_from` or `build.cache_to` its steps run where other builders run theirs",
        )
    } else if is_of_gateway(spec) {
        Some(
            "with \"host-gateway\" in `build.extra_hosts` Docker itself decides where the steps run",
        )
    } else if !asks_for_files {
        Some("its files go to Docker all at once, which then decides where the steps run")
    } else {
        None
    }
}

fn is_of_gateway(spec: &BuildSpec<'_>) -> bool {
    spec.extra_hosts.values().any(|address| address == GATEWAY)
}

/// `group`: where steps run, if the builder has to be told. `None` if only `POST /build` can say it.
pub(super) fn request(
    spec: &BuildSpec<'_>,
    session: &str,
    group: Option<String>,
) -> Option<SolveRequest> {
    if is_of_gateway(spec) {
        return None;
    }
    // Like the one that the engine's own client makes, which is the build's name in its history.
    let id = session::id();
    let mut cache = CacheOptions::default();
    if spec.keeps_cache {
        cache.exports.push(CacheOptionsEntry {
            r#type: "inline".to_owned(),
            attrs: HashMap::new(),
        });
    }
    let mut attributes = attributes(spec);
    attributes.extend(group.map(|group| ("cgroup-parent".to_owned(), group)));
    let host = spec.network.filter(|network| *network == "host");
    Some(SolveRequest {
        r#ref: id,
        // Known by every version; the later field for several exporters is not.
        exporter_deprecated: "moby".to_owned(),
        exporter_attrs_deprecated: HashMap::from([("name".to_owned(), spec.name.to_owned())]),
        session: session.to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attributes,
        cache: Some(cache),
        entitlements: host
            .map(|_| "network.host".to_owned())
            .into_iter()
            .collect(),
        ..SolveRequest::default()
    })
}

fn attributes(spec: &BuildSpec<'_>) -> HashMap<String, String> {
    let mut attributes = HashMap::new();
    let mut set = |name: &str, value: &str| {
        attributes.insert(name.to_owned(), value.to_owned());
    };
    set("filename", spec.dockerfile);
    for (name, value) in arguments(spec) {
        set(&format!("build-arg:{name}"), &value);
    }
    for (name, value) in spec.labels {
        set(&format!("label:{name}"), value);
    }
    if !spec.cache_from.is_empty() {
        set("cache-from", &spec.cache_from.join(","));
    }
    if spec.no_cache {
        set("no-cache", "");
    }
    // By default containerd's store asks the registry first.
    let resolve = if spec.pull { "pull" } else { "local" };
    set("image-resolve-mode", resolve);
    if let Some(target) = spec.target {
        set("target", target);
    }
    if let Some(platform) = spec.platform {
        set("platform", platform);
    }
    if let Some(network) = spec.network {
        set("force-network-mode", network);
    }
    if !spec.extra_hosts.is_empty() {
        let hosts = spec.extra_hosts.iter();
        let hosts: Vec<_> = hosts
            .map(|(name, address)| format!("{name}={address}"))
            .collect();
        set("add-hosts", &hosts.join(","));
    }
    if let Some(bytes) = spec.shm_size {
        set("shm-size", &bytes.to_string());
    }
    attributes
}

/// The Dockerfile's arguments, and the builder's own.
pub(super) fn arguments<'a>(spec: &'a BuildSpec<'_>) -> BTreeMap<&'a str, Cow<'a, str>> {
    let given = spec.args.iter();
    let mut all: BTreeMap<_, _> = given
        .map(|(name, value)| (name.as_str(), Cow::from(value)))
        .collect();
    if spec.keeps_cache {
        all.insert(INLINE_CACHE, "1".into());
    }
    if spec.attests {
        all.entry(PROVENANCE).or_insert(LITTLE.into());
    }
    if let Some(image) = &spec.scanner {
        let scanner = format!("generator={image}");
        all.entry(SBOM).or_insert(scanner.into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_placed_where_nobody_else_has_to_find_them_again() {
        let (args, mut hosts) = (BTreeMap::new(), BTreeMap::new());
        let labels = HashMap::new();
        let spec = |hosts, cache: &[&str]| BuildSpec {
            dockerfile: "Dockerfile",
            shared_key: "",
            name: "cutover/hello:1",
            args: &args,
            labels: &labels,
            target: None,
            platform: None,
            network: None,
            extra_hosts: hosts,
            shm_size: None,
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            cache_from: cache.iter().map(|it| (*it).to_owned()).collect(),
            keeps_cache: false,
            attests: true,
            scanner: None,
            no_cache: false,
            pull: false,
        };
        let none = BTreeMap::new();
        let group = || Some("/builds".to_owned());
        let placed = spec(&none, &[]);
        assert_eq!(apart(&placed, true), None);
        let request = request(&placed, "session", group()).unwrap();
        assert_eq!(request.frontend_attrs["cgroup-parent"], "/builds");
        assert!(apart(&placed, false).is_some());
        assert!(apart(&spec(&none, &["registry.example.com/cache:1"]), true).is_some());
        hosts.insert("here".to_owned(), GATEWAY.to_owned());
        let by_docker = spec(&hosts, &[]);
        assert!(apart(&by_docker, true).is_some());
        assert!(super::request(&by_docker, "session", group()).is_none());
    }
}
