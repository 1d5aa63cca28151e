//! A repository's LFS server: where it is, and what it says about files (the batch API).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::Stored;
use super::action::{Action, address};
use super::request::{meaning, send};
use crate::config::Repo;
use crate::source::resolve::line;
use crate::source::transport::{Failure, Session, ask_for_lfs, token_for};

const JSON: &str = "application/vnd.git-lfs+json";
/// The longest answer, in bytes.
const LONGEST: usize = 4 << 20;

pub(super) struct Server {
    session: Arc<Session>,
    url: Url,
    headers: HeaderMap,
}

#[derive(Deserialize)]
struct Answer {
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Actions {
    download: Option<Action>,
}

#[derive(Deserialize)]
struct Refusal {
    code: i64,
    #[serde(default)]
    message: String,
}

impl Server {
    /// By git-lfs's rules: over http it is below the repository, over ssh the server names it.
    pub(super) fn of(repo: &Repo, session: &Arc<Session>) -> Result<Self, Failure> {
        let none = || Failure::Unreachable("it has no Git LFS".into());
        let (url, headers) = match repo {
            Repo::Http(text) => {
                let configured = address(text)?;
                let path = configured.path().trim_end_matches('/');
                let path = path.strip_suffix(".git").unwrap_or(path);
                let mut url = configured.clone();
                url.set_path(&format!("{path}.git/info/lfs"));
                let mut headers = HeaderMap::new();
                if session.source.token.is_some() {
                    let token = token_for(&configured, &url, &session.source);
                    headers.insert(AUTHORIZATION, token.map_err(Failure::Refused)?);
                }
                (url, headers)
            }
            Repo::Ssh(text) => {
                let said = ask_for_lfs(session, text)?;
                let action: Action = serde_json::from_slice(&said).map_err(|_| none())?;
                action.target()?
            }
            Repo::Local(_) | Repo::Image(_) => return Err(none()),
        };
        Ok(Self {
            session: session.clone(),
            url,
            headers,
        })
    }

    /// Where each of the files is.
    pub(super) fn ask<'a>(
        &self,
        files: &[&'a Stored],
    ) -> Result<Vec<(&'a Stored, Action)>, Failure> {
        let mut url = self.url.clone();
        url.set_path(&format!(
            "{}/objects/batch",
            url.path().trim_end_matches('/')
        ));
        let objects = files
            .iter()
            .map(|file| json!({"oid": file.oid, "size": file.size}));
        let question = json!({
            "operation": "download",
            "transfers": ["basic"],
            "objects": objects.collect::<Vec<_>>(),
            "hash_algo": "sha256",
        });
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, HeaderValue::from_static(JSON));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let body = Bytes::from(question.to_string());
        let mut answer = send(&self.session, Method::POST, &url, &headers, body)?;
        let status = answer.status;
        if status != StatusCode::OK {
            return Err(match status {
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                    Failure::Unreachable("it has no Git LFS".into())
                }
                _ => answer.refusal(&self.session),
            });
        }
        let odd = |why: &str| Failure::Unreachable(format!("its Git LFS {why}"));
        let text = answer.collect(&self.session, LONGEST)?;
        let said: Answer =
            serde_json::from_slice(&text).map_err(|_| odd("answers something else"))?;
        let mut found: BTreeMap<String, Object> = (said.objects.into_iter())
            .map(|it| (it.oid.clone(), it))
            .collect();
        let mut all = Vec::new();
        for file in files {
            // The same file may be asked for twice.
            let Some(object) = found.remove(&file.oid) else {
                continue;
            };
            if let Some(error) = object.error {
                let (oid, code) = (&file.oid[..12], error.code);
                let why = format!(
                    "its Git LFS does not give out `{oid}…`: {code} {}",
                    line(&error.message)
                );
                let status = u16::try_from(code).ok();
                let status = status.and_then(|code| StatusCode::from_u16(code).ok());
                return Err(match status {
                    Some(status) => meaning(status, why),
                    None => Failure::Unreachable(why),
                });
            }
            let action = object.actions.and_then(|actions| actions.download);
            let mut action = action.ok_or_else(|| odd("does not say where a file is"))?;
            self.authorize(&mut action);
            all.push((*file, action));
        }
        Ok(all)
    }

    /// A file on the LFS server itself gets what that got.
    fn authorize(&self, action: &mut Action) {
        let is_named = (action.header.keys()).any(|key| key.eq_ignore_ascii_case("authorization"));
        let same = Url::parse(&action.href).is_ok_and(|to| to.origin() == self.url.origin());
        if let Some(value) = self.headers.get(AUTHORIZATION)
            && let Ok(value) = value.to_str()
            && same
            && !is_named
        {
            action
                .header
                .insert("Authorization".into(), value.to_owned());
        }
    }
}
