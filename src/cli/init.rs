//! `cutover init`: a first deploy.toml.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;

use super::{Error, Global, print};

const TEMPLATE: &str = include_str!("init.toml");

/// Write a commented deploy.toml to begin with
#[derive(Debug, Args)]
pub struct Init {
    /// The app's name
    #[arg(default_value = "hello")]
    app: String,
    /// Its repository: https, ssh, or the path of a bare repository on this machine
    #[arg(
        long,
        value_name = "REPO",
        default_value = "https://github.com/acme/hello.git"
    )]
    repo: String,
}

/// Writes to `--config`, by default `./deploy.toml`; an existing file is left as it is.
pub fn run(args: Init, global: &Global) -> Result<(), Error> {
    if let Err(error) = args.app.parse::<crate::ids::AppName>() {
        return Err(Error::usage(error.to_string()));
    }
    let path = global.config.clone().unwrap_or("deploy.toml".into());
    write(&path, &filled_in(&args)).map_err(|error| {
        let shown = path.display();
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => Error::usage(format!(
                "`{shown}` is there already, and is left as it is"
            ))
            .hint(format!(
                "to add an app, write a table `[apps.{}]` into it; `--config PATH` names \
                         another file",
                args.app
            )),
            _ => Error::usage(format!("`{shown}` cannot be written")).because(&error),
        }
    })?;
    print::line(format_args!(
        "Wrote `{}`. Edit it, then:\n  cutover check\n  cutover serve",
        path.display()
    ));
    Ok(())
}

fn write(path: &PathBuf, text: &str) -> std::io::Result<()> {
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}

fn filled_in(args: &Init) -> String {
    let variable = args.app.to_uppercase().replace('-', "_");
    // A TOML string by the rules of JSON, which are the same for what a repository's name can hold.
    let repo = serde_json::Value::from(args.repo.as_str()).to_string();
    TEMPLATE
        .replace("\"REPO\"", &repo)
        .replace("APP", &args.app)
        .replace("VARIABLE", &variable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn what_it_writes_is_a_configuration_without_mistakes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let args = Init {
            app: "my-app".into(),
            repo: "git@example.com:ada/my-app.git".into(),
        };
        write(&path, &filled_in(&args)).unwrap();
        let config = config::load(&path).unwrap();
        let app = &config.apps[&"my-app".parse().unwrap()];
        assert_eq!(app.domains, ["my-app.example.com"]);
        assert_eq!(app.repo, config::Repo::Ssh(args.repo));
        let secret = config::Secret::Env("MY_APP_WEBHOOK_SECRET".into());
        assert_eq!(app.webhook.secrets, [secret]);

        let again = write(&path, "").unwrap_err();
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
    }
}
