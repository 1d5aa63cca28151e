//! What is allowed but probably not intended.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use super::{
    Auth, Config, Notice, Repo, Secret, Value, VolumeSource, env_file, mountable, sharing, similar,
};
use crate::ids::AppName;

/// One sentence for each setting that will not work, or not work well, on this machine in its
/// present state, such as a missing secret. Reads secrets and opens files, but shows no secret.
pub fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.apps.is_empty() {
        warnings.push("there are no apps yet: add a section such as `[apps.hello]`".to_owned());
    }
    for (key, address) in [
        ("http", Some(config.proxy.http)),
        ("https", config.proxy.https),
    ] {
        let four = address.filter(|it| it.ip() == IpAddr::from(Ipv4Addr::UNSPECIFIED));
        if let Some(address) = four.filter(|_| has_six()) {
            warnings.push(format!(
                "`proxy.{key}` is `{address}`, which takes IPv4 only, and this machine has IPv6 too: \
                 `[::]:{}` takes both",
                address.port()
            ));
        }
    }
    for name in (config.docker.allow.iter()).filter(|name| !config.apps.contains_key(*name)) {
        let apps = config.apps.keys().map(AppName::as_str);
        let meant = similar::nearest(name.as_str(), apps);
        let meant = meant.map_or(String::new(), |it| format!("; did you mean `{it}`?"));
        warnings.push(format!(
            "`docker.allow` names `{name}`, which is no app{meant}"
        ));
    }
    for (status, path) in &config.proxy.error_pages {
        unread(&mut warnings, &format!("`proxy.error_pages.{status}"), path);
    }
    if let Some(acme) = &config.proxy.acme {
        if let Some(path) = &acme.directory_ca {
            certificate_warning(&mut warnings, path);
        }
        if let Some(account) = &acme.account
            && let Err(error) = account.key.read()
        {
            warnings.push(format!("`proxy.acme.account.key`: {error}"));
        }
    }
    for (name, notifier) in &config.notify {
        for (key, secret) in [
            ("url", notifier.url.as_ref()),
            ("secret", notifier.secret.as_ref()),
            ("user", notifier.user.as_ref()),
        ] {
            if let Some(Err(error)) = secret.map(Secret::read) {
                warnings.push(format!("`notify.{name}.{key}`: {error}"));
            }
        }
    }
    for (name, app) in &config.apps {
        let at = format!("`apps.{name}");
        if app.domains_ask.is_some() && config.proxy.acme.is_none() {
            warnings.push(format!(
                "{at}.domains_ask` is not used: certificates are ordered with `proxy.https` and `proxy.acme`"
            ));
        }
        if matches!(&app.repo, Repo::Http(url) if url == EXAMPLE) {
            warnings.push(format!(
                "{at}.repo` is the example's: put your repository there"
            ));
        }
        // A repository on this machine is pushed to directly.
        if app.webhook.secrets.is_empty() && !matches!(app.repo, Repo::Local(_)) {
            warnings.push(format!(
                "{at}.webhook.secrets` is missing: every webhook delivery for this app will be refused; \
                 generate one with `cutover secret`"
            ));
        }
        let webhook = app.webhook.secrets.iter();
        let webhook = webhook.map(|secret| ("webhook.secrets".to_owned(), secret));
        let token = app.source.token.iter();
        let token = token.map(|secret| ("source.token".to_owned(), secret));
        let hosts = app.source.hosts.iter();
        let hosts = hosts.filter_map(|(host, access)| {
            Some((
                format!("source.hosts.\"{host}\".token"),
                access.token.as_ref()?,
            ))
        });
        let token = token.chain(hosts);
        let report = app.report.iter().map(|report| match &report.auth {
            Auth::Token(secret) => ("report.token".to_owned(), secret),
            Auth::App(github) => ("report.private_key".to_owned(), &github.private_key),
        });
        let env = app.run.env.iter().filter_map(|(name, value)| match value {
            Value::From(secret) => Some((format!("run.env.{name}"), secret)),
            Value::Text(_) => None,
        });
        let secrets = app.run.secrets.iter();
        let secrets =
            secrets.filter_map(|(name, it)| Some((format!("run.secrets.{name}"), it.as_ref()?)));
        let args = app
            .build
            .args
            .iter()
            .filter_map(|(name, value)| match value {
                Value::From(secret) => Some((format!("build.args.{name}"), secret)),
                Value::Text(_) => None,
            });
        let mounted = app.build.secrets.iter();
        let mounted = mounted.map(|(id, secret)| (format!("build.secrets.{id}"), secret));
        let keys = app.build.ssh.iter();
        let keys = keys.filter(|(_, from)| !matches!(from, Secret::File(path) if is_socket(path)));
        let keys = keys.map(|(id, from)| (format!("build.ssh.{id}"), from));
        let users = app.proxy.basic_auth.iter().flat_map(|auth| &auth.users);
        let passwords = (users.clone())
            .filter_map(|user| Some(("proxy.basic_auth".to_owned(), user.secret()?)));
        let others = args.chain(mounted).chain(keys).chain(passwords);
        let logged = app.proxy.front.as_ref();
        let logged = logged.and_then(|front| front.access_log.as_ref());
        if logged.is_some() && config.proxy.access_log.is_none() {
            warnings.push(format!(
                "{at}.proxy.access_log` is not used: set `proxy.access_log`, the file of the log"
            ));
        }
        let secret = |name: &&String| SECRET_FIELDS.contains(&name.as_str());
        for name in logged.iter().flat_map(|it| &it.headers).filter(secret) {
            warnings.push(format!(
                "{at}.proxy.access_log.headers`: `{name}` lets whoever reads the log come in as the visitor"
            ));
        }
        for user in users {
            if let Some(problem) = user.problem() {
                warnings.push(format!(
                    "{at}.proxy.basic_auth`: `{}` cannot come in: {problem}",
                    user.name.escape_debug()
                ));
            }
        }
        if app.proxy.basic_auth.is_some() && config.proxy.https.is_none() {
            warnings.push(format!(
                "{at}.proxy.basic_auth`: passwords are sent unencrypted to a proxy without TLS; set \
                 `proxy.https`, unless another proxy in front has it"
            ));
        }
        let all = webhook.chain(token).chain(report).chain(env).chain(secrets);
        for (key, secret) in all.chain(others) {
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
        if let Some(path) = &app.run.env_file {
            if let Err(error) = env_file::read(path) {
                warnings.push(format!("{at}.run.env_file`: {error}"));
            } else if open_to_others(path) {
                warnings.push(format!(
                    "{at}.run.env_file`: every user of this machine can read `{}`; run `chmod 600` on it",
                    path.display()
                ));
            }
        }
        if let Some(path) = &app.build.args_file
            && let Err(error) = env_file::read(path)
        {
            warnings.push(format!("{at}.build.args_file`: {error}"));
        }
        for volume in &app.run.volumes {
            if let VolumeSource::Host(path) = &volume.source
                && let Err(error) = mountable(config, name, path)
            {
                warnings.push(format!("{at}.run.volumes`: {error}"));
            }
        }
        warnings.extend(sharing::warnings(&at, app));
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
        for arg in app.build.args.keys().filter(|arg| looks_secret(arg)) {
            warnings.push(format!(
                "{at}.build.args.{arg}` looks like a secret: build arguments stay readable in the image's \
                 history; pass it in `build.secrets`, or to the running app"
            ));
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

/// Whether a name is one that people give to secrets.
pub fn looks_secret(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "SECRET",
        "TOKEN",
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "CREDENTIAL",
        "APIKEY",
        "PRIVATE",
    ];
    let name = name.to_ascii_uppercase();
    let is_key = name
        .split('_')
        .any(|word| matches!(word, "KEY" | "PASS" | "PAT" | "PWD" | "AUTH"));
    is_key || WORDS.iter().any(|word| name.contains(word))
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

fn certificate_warning(warnings: &mut Vec<String>, path: &Path) {
    if let Err(error) = std::fs::File::open(path) {
        let path = path.display();
        warnings.push(format!(
            "`proxy.acme.directory_ca`: `{path}` cannot be read ({error}); no certificate is ordered"
        ));
    }
}

/// The repository that `cutover init` writes if it knows none.
pub const EXAMPLE: &str = "https://github.com/acme/hello.git";
/// Fields by which visitors prove who they are.
const SECRET_FIELDS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// Whether this machine has an IPv6 address that others can reach it by.
fn has_six() -> bool {
    let text = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    has_global(&text)
}

/// Whether one of these lines of if_inet6 is of an address of global scope: the fourth field, 00.
fn has_global(lines: &str) -> bool {
    let mut scopes = lines.lines().map(|line| line.split_whitespace().nth(3));
    scopes.any(|scope| scope == Some("00"))
}

pub fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.metadata().is_ok_and(|it| it.file_type().is_socket())
}

fn open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_only_this_link_knows_is_none_of_global_scope() {
        let lo = "00000000000000000000000000000001 01 80 10 80       lo\n";
        let link = "fe80000000000000f85307fffefe0527 617 40 20 80 vethd09f774\n";
        assert!(!has_global(&format!("{lo}{link}")));
        let global = "20010db8000000000000000000000002 04 40 00 82     eth0\n";
        assert!(has_global(&format!("{lo}{link}{global}")));
    }

    #[test]
    fn names_of_secrets_are_known() {
        for name in [
            "NPM_TOKEN",
            "npm_token",
            "DB_PASSWORD",
            "SECRET_KEY_BASE",
            "AWS_KEY",
            "GH_PAT",
        ] {
            assert!(looks_secret(name), "{name}");
        }
        for name in [
            "VERSION", "RUST_LOG", "KEYBOARD", "PATH", "COMPASS", "AUTHOR",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }

    #[test]
    fn a_build_argument_that_looks_like_a_secret_is_warned_of_without_its_value() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deploy.toml");
        let text = "[apps.a]\nrepo = '/srv/a.git'\nport = 1\n[apps.a.build]\n\
                    args = { NPM_TOKEN = 'hush', VERSION = '1' }\n";
        std::fs::write(&path, text).unwrap();
        let config = crate::config::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        let warnings = warnings(&config);
        let of_args: Vec<_> = warnings
            .iter()
            .filter(|it| it.contains("build.args"))
            .collect();
        assert_eq!(of_args.len(), 1, "{warnings:?}");
        assert!(of_args[0].contains("`apps.a.build.args.NPM_TOKEN`"));
        assert!(!warnings.iter().any(|it| it.contains("hush")));
    }
}
