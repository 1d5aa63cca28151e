//! The account at an authority: made once, then kept in a file.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, Error, ExternalAccountKey, NewAccount};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Failure;
use super::files::{self, Files};
use super::http::{Http, Patience};
use crate::config::{Acme, ExternalAccount};
use crate::printable::printable;

/// An account that was opened.
#[derive(Clone)]
pub struct Opened {
    pub account: Account,
    pub patience: Patience,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    /// What the authority knows.
    email: Option<String>,
    credentials: Value,
}

/// Opens the account, and makes it if there is none yet or the authority has lost it.
pub async fn open(acme: &Acme, files: &Files) -> Result<Opened, Failure> {
    let path = files.account(&acme.directory);
    let (ca, file) = (acme.directory_ca.clone(), path.clone());
    let prepared = tokio::task::spawn_blocking(move || (Http::new(ca.as_deref()), read(&file)));
    let (http, kept) = prepared.await.map_err(|e| Failure::Away(e.to_string()))?;
    let http = http.map_err(Failure::Refused)?;
    let kept = kept.map_err(|error| damaged(&path, &error))?;
    let patience = http.patience.clone();
    let failed = |error| failure(error, &patience);
    let Some(kept) = kept else {
        return make(acme, &path, http).await;
    };
    let credentials = serde_json::from_value(kept.credentials.clone());
    let credentials = credentials.map_err(|error| damaged(&path, &error))?;
    let builder = Account::builder_with_http(Box::new(http.clone()));
    let account = builder
        .from_credentials(credentials)
        .await
        .map_err(failed)?;
    if kept.email != acme.email {
        let contact = contact(acme);
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        match account.update_contacts(&contact).await {
            Ok(()) => keep(acme, &path, kept.credentials).await?,
            Err(error) if is_lost(&error) => return make(acme, &path, http).await,
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Opened { account, patience })
}

/// The authority has lost the account: its file is set aside, and the next [`open`] makes a new one.
pub async fn forget(files: &Files, directory: &str) {
    let path = files.account(directory);
    tracing::warn!("`{directory}` does not know its account any more: making a new one");
    let _ = tokio::fs::rename(&path, path.with_extension("lost")).await;
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::Refused(format!(
        "the account's file `{}` cannot be used: {error}; move it away, and a new account is made",
        path.display()
    ))
}

/// Whether the authority does not know the account any more.
pub fn is_lost(error: &Error) -> bool {
    kind(error).is_some_and(|kind| kind.ends_with(":accountDoesNotExist"))
}

async fn make(acme: &Acme, path: &Path, http: Http) -> Result<Opened, Failure> {
    let patience = http.patience.clone();
    let contact = contact(acme);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let external = match acme.account.clone() {
        Some(account) => Some(external(account).await?),
        None => None,
    };
    let builder = Account::builder_with_http(Box::new(http));
    let made = builder.create(&wanted, acme.directory.clone(), external.as_ref());
    let (account, credentials) = made.await.map_err(|error| failure(error, &patience))?;
    let credentials: AccountCredentials = credentials;
    let credentials =
        serde_json::to_value(credentials).map_err(|e| Failure::Away(e.to_string()))?;
    keep(acme, path, credentials).await?;
    tracing::info!(id = account.id(), "made an account at `{}`", acme.directory);
    Ok(Opened { account, patience })
}

async fn external(account: ExternalAccount) -> Result<ExternalAccountKey, Failure> {
    let read = tokio::task::spawn_blocking(move || (account.key.read_text(), account.id));
    let (key, id) = read.await.map_err(|e| Failure::Away(e.to_string()))?;
    let key =
        key.map_err(|error| Failure::Refused(format!("`proxy.acme.account.key`: {error}")))?;
    let key = BASE64_URL_SAFE_NO_PAD.decode(key.trim_end_matches('='));
    let key = key.map_err(|_| {
        Failure::Refused(
            "`proxy.acme.account.key` is not in base64url, as authorities show it".into(),
        )
    })?;
    Ok(ExternalAccountKey::new(id, &key))
}

fn contact(acme: &Acme) -> Vec<String> {
    let email = acme.email.iter();
    email.map(|email| format!("mailto:{email}")).collect()
}

async fn keep(acme: &Acme, path: &Path, credentials: Value) -> Result<(), Failure> {
    let kept = Kept {
        email: acme.email.clone(),
        credentials,
    };
    let text = serde_json::to_vec(&kept).map_err(|e| Failure::Away(e.to_string()))?;
    let file = path.to_owned();
    let written = tokio::task::spawn_blocking(move || files::write(&file, &text));
    let written = written.await.map_err(|e| Failure::Away(e.to_string()))?;
    written.map_err(|error| {
        Failure::Away(format!(
            "failed to write the account to `{}`: {error}",
            path.display()
        ))
    })
}

fn read(path: &Path) -> io::Result<Option<Kept>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn kind(error: &Error) -> Option<&str> {
    match error {
        Error::Api(problem) => problem.r#type.as_deref(),
        _ => None,
    }
}

/// What an error means for the next attempt.
pub fn failure(error: Error, patience: &Patience) -> Failure {
    let wait = patience.take();
    let status = match &error {
        Error::Api(problem) => problem.status,
        _ => None,
    };
    let kind = kind(&error).unwrap_or_default();
    let kind = kind.rsplit(':').next().unwrap_or_default().to_owned();
    let why = match &error {
        Error::Api(problem) => said(problem),
        other => other.to_string(),
    };
    match (kind.as_str(), &error) {
        ("rateLimited", _) => Failure::Wait {
            why,
            pause: wait.unwrap_or_default(),
        },
        ("accountDoesNotExist", _) => Failure::NoAccount,
        ("badNonce" | "serverInternal", _) => Failure::Away(why),
        (_, Error::Api(_)) if status.is_some_and(|status| status >= 500) => Failure::Away(why),
        (_, Error::Api(_)) => Failure::Refused(why),
        (_, Error::Timeout(_)) => {
            Failure::Away("the authority takes its time; continuing later".into())
        }
        _ => match wait {
            Some(pause) => Failure::Wait { why, pause },
            None => Failure::Away(why),
        },
    }
}

/// What an authority says of a problem, in one line.
pub fn said(problem: &instant_acme::Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.rsplit(':').next().unwrap_or_default();
    let subs = problem.subproblems.iter();
    let details = problem.detail.iter().cloned();
    let details = details.chain(subs.filter_map(|it| it.detail.clone()));
    let text = details.collect::<Vec<_>>().join("; ");
    let text = printable(&text).replace('\n', " ");
    match text.is_empty() {
        true => format!("the authority refuses ({kind})"),
        false => format!("{text} ({kind})"),
    }
}
