//! What is allowed but probably not intended.

use std::path::Path;

use super::{Auth, Config, Notice, Repo, Secret};

/// One sentence for each setting that will not work, or not work well, on this machine in its
/// present state, such as a missing secret. Reads secrets and opens files, but shows no secret.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.apps.is_empty() {
        warnings.push("there are no apps yet: add a section such as `[apps.hello]`".to_owned());
    }
    for (status, path) in &config.proxy.error_pages {
        unread(&mut warnings, &format!("`proxy.error_pages.{status}"), path);
    }
    for (name, app) in &config.apps {
        let at = format!("`apps.{name}");
        // A repository on this machine is pushed to directly.
        if app.webhook.secrets.is_empty() && !matches!(app.repo, Repo::Local(_)) {
            warnings.push(format!(
                "{at}.webhook.secrets` is missing: every webhook delivery for this app will be refused; \
                 generate one with `cutover secret`"
            ));
        }
        let webhook = app.webhook.secrets.iter();
        let secrets = webhook.map(|secret| ("webhook.secrets", secret)).chain(
            app.source
                .token
                .iter()
                .map(|secret| ("source.token", secret)),
        );
        let report = app.report.iter().map(|report| match &report.auth {
            Auth::Token(secret) => ("report.token", secret),
            Auth::App(github) => ("report.private_key", &github.private_key),
        });
        for (key, secret) in secrets.chain(report) {
            if let Err(error) = secret.read() {
                warnings.push(format!("{at}.{key}`: {error}"));
            }
            if let Secret::File(path) = secret
                && open_to_others(path)
            {
                warnings.push(format!(
                    "{at}.{key}`: every user of this machine can read `{}`; run `chmod 600` on it",
                    path.display()
                ));
            }
        }
        if let Some(report) = &app.report
            && report.address.api.starts_with("http://")
        {
            warnings.push(format!(
                "{at}.report.token`: it is sent unencrypted to `{}`; use an `https://` address as `url`",
                report.address.api
            ));
        }
        let notice = match &app.proxy.maintenance {
            Some(Notice::File(path)) => Some(("maintenance".to_owned(), path)),
            _ => None,
        };
        let pages = app.proxy.error_pages.iter();
        let pages = pages.map(|(status, path)| (format!("error_pages.{status}"), path));
        for (key, path) in pages.chain(notice) {
            unread(&mut warnings, &format!("{at}.proxy.{key}"), path);
        }
        match &app.repo {
            Repo::Http(url) if app.source.token.is_some() && url.starts_with("http://") => {
                warnings.push(format!(
                    "{at}.repo`: the token is sent unencrypted over `http://`; use `https://`"
                ));
            }
            _ => {}
        }
        if app.source.token.is_some() && !matches!(app.repo, Repo::Http(_)) {
            warnings.push(format!(
                "{at}.source.token` is not used: `repo` is not an HTTPS address"
            ));
        }
        if !matches!(app.repo, Repo::Ssh(_)) {
            if app.source.ssh_key.is_some() {
                warnings.push(format!(
                    "{at}.source.ssh_key` is not used: `repo` is not an SSH address"
                ));
            }
        } else if let Some(key) = &app.source.ssh_key
            && !key.is_file()
        {
            warnings.push(format!(
                "{at}.source.ssh_key`: there is no file `{}`",
                key.display()
            ));
        }
    }
    warnings
}

/// Warns about a page's file that cannot be read.
fn unread(warnings: &mut Vec<String>, key: &str, path: &Path) {
    if let Err(error) = std::fs::File::open(path) {
        let path = path.display();
        warnings.push(format!(
            "{key}`: `{path}` cannot be read ({error}); the proxy's own page is used instead"
        ));
    }
}

fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o004 != 0)
}
