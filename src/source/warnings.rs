//! What `cutover check` reports about the apps' repositories.

use std::path::{Path, PathBuf};

use super::SourceError;
use super::local::{is_work_tree, open};
use crate::config::{Config, Repo, Signers};

/// One sentence for each repository that, as this machine is now, cannot be deployed from or pushed to.
pub fn warnings(config: &Config) -> Vec<String> {
    let apps = config.apps.iter();
    let has_ssh = has_program("ssh");
    let said = apps.filter_map(|(name, app)| match &app.repo {
        Repo::Local(path) => Some(format!("`apps.{name}.repo`: {}", warning(path)?)),
        Repo::Ssh(_) if !has_ssh => Some(format!(
            "`apps.{name}.repo` is fetched with the program `ssh`, which is not installed \
             (`apt-get install openssh-client`)"
        )),
        _ => None,
    });
    let unsigned = config.apps.iter().filter_map(|(name, app)| {
        let signers = app.source.signers.as_ref()?;
        let key = format!("`apps.{name}.source.require_signature`");
        let missing = |program: &str, package: &str| {
            let missing = !has_program(program);
            missing.then(|| {
                format!(
                    "{key} needs the program `{program}`, which is not installed (`apt-get install {package}`): \
                     nothing will be deployed that it would have to verify"
                )
            })
        };
        let unread = |path: &PathBuf| {
            let error = std::fs::File::open(path).err()?;
            Some(format!("{key}: `{}` cannot be read: {error}", path.display()))
        };
        let keygen = || missing("ssh-keygen", "openssh-client");
        match signers {
            Signers::File(path) => keygen().or_else(|| unread(path)),
            Signers::Keys { ssh, gpg } => {
                let ssh = (!ssh.is_empty()).then(keygen).flatten();
                let gpgv = || (!gpg.is_empty()).then(|| missing("gpgv", "gpgv"))?;
                ssh.or_else(gpgv).or_else(|| gpg.iter().find_map(unread))
            }
        }
    });
    said.chain(unsigned).collect()
}

fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

fn warning(path: &Path) -> Option<String> {
    let shown = path.display();
    match open(path) {
        // libgit2's own answer is not used: a bare repository may lack a configuration.
        Ok(_) if is_work_tree(path) => Some(format!(
            "`{shown}` is a work tree: `cutover deploy` deploys its commits, but git refuses a \
             push to the branch that is checked out; push to a bare repository (`git clone --bare`)"
        )),
        Ok(_) => None,
        Err(SourceError::Unreachable { .. }) if path.exists() && !is_empty(path) => {
            Some(format!("`{shown}` is not a git repository"))
        }
        Err(SourceError::Unreachable { .. }) => Some(format!(
            "there is no bare repository at `{shown}` yet; the first `git push` to the agent creates it, \
             as does `git init --bare`"
        )),
        Err(error) => Some(error.to_string()),
    }
}

fn is_empty(folder: &Path) -> bool {
    folder
        .read_dir()
        .is_ok_and(|mut files| files.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_repository_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        git2::Repository::init_bare(at("bare.git")).unwrap();
        git2::Repository::init(at("tree")).unwrap();
        git2::Repository::init_bare(at("plain.git")).unwrap();
        std::fs::remove_file(at("plain.git").join("config")).unwrap();
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::create_dir_all(at("other/src")).unwrap();
        git2::Repository::init_bare(at("long.git")).unwrap();
        let config = "[core]\nrepositoryformatversion = 1\nbare = true\n[extensions]\n\
                      objectformat = sha256\n";
        std::fs::write(at("long.git").join("config"), config).unwrap();
        for (name, said) in [
            ("bare.git", None),
            ("plain.git", None),
            ("tree", Some("is a work tree")),
            ("gone.git", Some("yet")),
            ("empty", Some("yet")),
            ("other", Some("is not a git repository")),
            ("long.git", Some("SHA-256")),
        ] {
            let warning = warning(&at(name));
            match said {
                None => assert_eq!(warning, None),
                Some(said) => assert!(warning.as_ref().unwrap().contains(said), "{warning:?}"),
            }
        }
    }
}
