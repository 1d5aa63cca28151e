//! Paths of this machine that an app mounts.

use std::path::{Path, PathBuf};

use super::Config;
use crate::ids::AppName;

/// What a path of this machine leads to, if apps may mount it; otherwise why not. Blocks.
pub fn mountable(config: &Config, app: &AppName, host: &Path) -> Result<PathBuf, String> {
    let shown = host.display();
    let found = match host.canonicalize() {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!(
                "`{shown}` does not exist on this machine: create it (`mkdir -p {shown}`) and give it to \
                 the user that the app runs as"
            ));
        }
        Err(error) => return Err(format!("`{shown}` cannot be used: {error}")),
    };
    let socket = config.docker.socket();
    let is_socket = socket.as_ref().and_then(|it| it.canonicalize().ok()) == Some(found.clone());
    if is_socket && config.docker.allow.contains(app) {
        return Ok(found);
    }
    let is_below = |allowed: &PathBuf| {
        let allowed = allowed.canonicalize();
        allowed.is_ok_and(|allowed| found.starts_with(allowed))
    };
    if !config.docker.allow_binds.iter().any(is_below) {
        let leads = match found == host {
            true => String::new(),
            false => format!(", which leads to `{}`,", found.display()),
        };
        return Err(format!(
            "`{shown}`{leads} is not below one of `docker.allow_binds`: add its folder there"
        ));
    }
    let guarded = [(
        "the agent's data folder",
        Some(config.agent.data_dir.clone()),
    )];
    let guarded = guarded.into_iter().chain([("Docker's socket", socket)]);
    for (what, path) in guarded {
        let path = path.and_then(|path| path.canonicalize().ok());
        let allow = match is_socket {
            true => format!(", or name `{app}` in `docker.allow`"),
            false => String::new(),
        };
        if path.is_some_and(|path| path.starts_with(&found) || found.starts_with(&path)) {
            return Err(format!(
                "`{shown}` would give the app {what}, and with it this machine: mount another folder{allow}"
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_nowhere_that_is_not_allowed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let (srv, out) = (folder.join("srv"), folder.join("out"));
        for made in ["srv/data", "srv/agent", "out"] {
            std::fs::create_dir_all(folder.join(made)).unwrap();
        }
        std::os::unix::fs::symlink(&out, srv.join("link")).unwrap();
        std::os::unix::fs::symlink(srv.join("data"), srv.join("inner")).unwrap();
        let text = format!(
            "[agent]\ndata_dir = {:?}\n[docker]\nallow_binds = [{srv:?}]\n",
            srv.join("agent")
        );
        let path = folder.join("deploy.toml");
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap();
        let of = |path: &Path| mountable(&config, &"a".parse().unwrap(), path);
        assert_eq!(of(&srv.join("data")), Ok(srv.join("data")));
        assert_eq!(of(&srv.join("inner")), Ok(srv.join("data")));
        for refused in [
            srv.join("link"),
            srv.join("none"),
            srv.clone(),
            srv.join("agent"),
            out,
        ] {
            assert!(of(&refused).is_err(), "{refused:?}");
        }
    }
}
