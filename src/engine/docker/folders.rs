//! The folders in which an engine on this machine keeps images and containers.

use std::fs;
use std::path::{Path, PathBuf};

use bollard::models::SystemInfo;

/// How an engine that keeps its images in containerd's store says so.
const STORE: &str = "io.containerd.snapshotter.v1";
/// The sockets of a containerd that is a service of its own.
const SERVICE: [&str; 2] = [
    "/run/containerd/containerd.sock",
    "/var/run/containerd/containerd.sock",
];
/// How the socket ends of one that the engine starts itself, whose files are below the engine's own.
const OWN: &str = "/containerd/containerd.sock";
/// The settings of one that is a service of its own, and its folder unless they name another.
const SETTINGS: &str = "/etc/containerd/config.toml";
const USUAL: &str = "/var/lib/containerd";

pub(super) fn folders(info: &SystemInfo) -> Vec<PathBuf> {
    let mut folders: Vec<_> = info.docker_root_dir.iter().map(PathBuf::from).collect();
    if is_in_containerd(info) {
        let settings = fs::read_to_string(SETTINGS).unwrap_or_default();
        folders.push(folder_of(&settings));
    }
    folders
}

/// Whether images are in a containerd's store.
pub(super) fn has_store(info: &SystemInfo) -> bool {
    let mut status = info.driver_status.iter().flatten().flatten();
    status.any(|it| it == STORE)
}

/// Whether that is a service of its own.
fn is_in_containerd(info: &SystemInfo) -> bool {
    let socket = info
        .containerd
        .as_ref()
        .and_then(|it| it.address.as_deref());
    has_store(info)
        && match socket {
            Some(socket) => SERVICE.contains(&socket) || !socket.ends_with(OWN),
            // Before Docker 27 it does not say it.
            None => Path::new(SERVICE[0]).exists(),
        }
}

fn folder_of(settings: &str) -> PathBuf {
    let settings: toml::Table = settings.parse().unwrap_or_default();
    let named = settings.get("root").and_then(toml::Value::as_str);
    named.filter(|it| !it.is_empty()).unwrap_or(USUAL).into()
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerdInfo;

    use super::*;

    fn engine(driver: &str, socket: &str) -> SystemInfo {
        SystemInfo {
            docker_root_dir: Some("/var/lib/docker".into()),
            driver_status: Some(vec![vec!["driver-type".into(), driver.into()]]),
            containerd: Some(ContainerdInfo {
                address: Some(socket.into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn images_are_in_containerds_folder_where_it_is_a_service_and_has_them() {
        let service = "/run/containerd/containerd.sock";
        assert!(is_in_containerd(&engine(STORE, service)));
        assert!(!is_in_containerd(&engine("ext4", service)));
        let own = "/var/run/docker/containerd/containerd.sock";
        assert!(!is_in_containerd(&engine(STORE, own)));
        let second = "/run/docker2/containerd/containerd.sock";
        assert!(!is_in_containerd(&engine(STORE, second)));
        assert_eq!(
            folders(&engine(STORE, own)),
            ["/var/lib/docker"].map(PathBuf::from)
        );
        for (settings, folder) in [
            ("", USUAL),
            (
                "version = 2\nroot = \"/srv/containerd\"\n",
                "/srv/containerd",
            ),
            ("not toml", USUAL),
        ] {
            assert_eq!(folder_of(settings), PathBuf::from(folder), "{settings}");
        }
    }
}
