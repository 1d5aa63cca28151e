//! The logins to registries that `docker login` has left for the agent's user: in Docker's configuration, or
//! with the helpers that it names.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::moby::filesync::v1::auth_server::Auth;
use bollard::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse,
};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tonic::{Request, Response, Status};

/// What Docker's configuration calls Docker Hub, and where it really is.
const HUB: &str = "https://index.docker.io/v1/";
const HUB_HOST: &str = "registry-1.docker.io";
/// How long a helper may take.
const HELPER: Duration = Duration::from_secs(20);
/// The user name that stands for a token.
const TOKEN: &str = "<token>";

pub(super) struct Logins;

/// `~/.docker/config.json`, as far as it matters here. Not `Debug`: it holds passwords.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Login>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "lowercase", default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What a helper says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    username: String,
    secret: String,
}

type Pair = (String, String);

#[tonic::async_trait]
impl Auth for Logins {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let found = login(&host).await.map_err(Status::failed_precondition)?;
        // Without a login, the registry may still let anybody read.
        let (username, secret) = found.unwrap_or_default();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        Err(Status::unimplemented("FetchToken"))
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("GetTokenAuthority"))
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        Err(Status::unimplemented("VerifyTokenAuthority"))
    }
}

/// The login for a registry. An error is one sentence without secrets.
pub(in crate::engine::docker) async fn login(host: &str) -> Result<Option<Pair>, String> {
    let Some(path) = path() else {
        return Ok(None);
    };
    let shown = path.display().to_string();
    let text = match tokio::fs::read(&path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("`{shown}` cannot be read: {error}")),
    };
    let config: Config = serde_json::from_slice(&text)
        .map_err(|error| format!("`{shown}` is not valid: line {}", error.line()))?;
    match helper(&config, host) {
        Some((helper, name)) => ask(&helper, &name).await,
        None => Ok(found(&config, host)),
    }
}

fn path() -> Option<PathBuf> {
    let folder = match std::env::var_os("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

/// The names under which a registry may be known.
fn names(host: &str) -> Vec<String> {
    if host == HUB_HOST || host == "docker.io" {
        return [HUB, "index.docker.io", "docker.io", HUB_HOST]
            .map(str::to_owned)
            .into();
    }
    let forms = ["", "https://", "http://"];
    let ends = ["", "/", "/v1/", "/v2/"];
    let names = forms
        .iter()
        .flat_map(|form| ends.iter().map(move |end| format!("{form}{host}{end}")));
    names.collect()
}

fn found(config: &Config, host: &str) -> Option<Pair> {
    let login = names(host).iter().find_map(|name| config.auths.get(name))?;
    if !login.identitytoken.is_empty() {
        return Some((String::new(), login.identitytoken.clone()));
    }
    let decoded = STANDARD
        .decode(&login.auth)
        .ok()
        .and_then(|pair| String::from_utf8(pair).ok());
    let pair = decoded.as_deref().and_then(|pair| pair.split_once(':'));
    let (user, password) = pair.unwrap_or((&login.username, &login.password));
    let password = password.trim_end_matches('\0');
    (!user.is_empty()).then(|| (user.to_owned(), password.to_owned()))
}

/// The helper that keeps the login, and the name under which it does.
fn helper(config: &Config, host: &str) -> Option<(String, String)> {
    let names = names(host);
    for name in &names {
        if let Some(helper) = config.cred_helpers.get(name) {
            return Some((helper.clone(), name.clone()));
        }
    }
    // A store keeps what `auths` names without a password.
    let kept = names.iter().find(|name| config.auths.contains_key(*name))?;
    (!config.creds_store.is_empty()).then(|| (config.creds_store.clone(), kept.clone()))
}

async fn ask(helper: &str, name: &str) -> Result<Option<Pair>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !helper.chars().all(plain) {
        return Err("Docker's configuration names an invalid credential helper".into());
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| format!("`{program}`, which keeps the login to `{name}`, {why}");
    let mut command = Command::new(&program);
    command.arg("get").kill_on_drop(true);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(name.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let ended = tokio::time::timeout(HELPER, run).await;
    let ended = ended.map_err(|_| failed("does not end".into()))?;
    let ended = ended.map_err(|error| failed(format!("cannot be run: {error}")))?;
    if !ended.status.success() {
        return Ok(None);
    }
    let said: Said = serde_json::from_slice(&ended.stdout)
        .map_err(|_| failed("answers with something else".into()))?;
    Ok(Some(match said.username.as_str() {
        TOKEN => (String::new(), said.secret),
        _ => (said.username, said.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_found_under_each_of_its_names() {
        let config = r#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "YW5uOnB3"},
                "registry.example:5000": {"username": "bob", "password": "pw2"},
                "https://old.example/v2/": {"identitytoken": "tok"},
                "kept.example": {}
            },
            "credsStore": "pass",
            "credHelpers": {"cloud.example": "gcr"}
        }"#;
        let config: Config = serde_json::from_str(config).unwrap();
        let pair = |user: &str, secret: &str| Some((user.to_owned(), secret.to_owned()));
        assert_eq!(found(&config, HUB_HOST), pair("ann", "pw"));
        assert_eq!(found(&config, "registry.example:5000"), pair("bob", "pw2"));
        assert_eq!(found(&config, "old.example"), pair("", "tok"));
        assert_eq!(found(&config, "kept.example"), None);
        assert_eq!(found(&config, "other.example"), None);
        assert_eq!(
            helper(&config, "cloud.example"),
            pair("gcr", "cloud.example")
        );
        assert_eq!(
            helper(&config, "kept.example"),
            pair("pass", "kept.example")
        );
        assert_eq!(helper(&config, "other.example"), None);
    }
}
