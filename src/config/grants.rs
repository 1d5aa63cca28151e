//! What of this machine an app may have.

use std::path::{Path, PathBuf};

use super::Docker;
use super::file::Node;
use crate::ids::AppName;

pub(super) struct Grants<'a> {
    /// The paths below which it may mount any.
    pub binds: &'a [PathBuf],
    socket: Option<PathBuf>,
    is_allowed: bool,
}

impl<'a> Grants<'a> {
    pub fn of(docker: &'a Docker, app: Option<&AppName>) -> Self {
        Self {
            binds: &docker.allow_binds,
            socket: docker.socket(),
            is_allowed: app.is_some_and(|app| docker.allow.contains(app)),
        }
    }

    /// Whether it is Docker's socket.
    pub fn is_socket(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        self.socket
            .as_deref()
            .is_some_and(|it| real(it) == real(path))
    }

    /// `value`, if the app may have what is as good as this machine.
    pub fn allow<T>(&self, node: &Node<'_>, value: T) -> Option<T> {
        match self.is_allowed {
            true => Some(value),
            false => node.report(format!(
                "`{}` gives the app this machine: remove it, or name the app in `docker.allow`",
                node.path
            )),
        }
    }
}

impl Docker {
    /// The path of its socket on this machine.
    pub(super) fn socket(&self) -> Option<PathBuf> {
        self.host.strip_prefix("unix://").map(PathBuf::from)
    }
}
