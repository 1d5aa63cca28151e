//! GitLab: `Push Hook`, `Tag Push Hook`, and the same two as system hooks.

use std::time::SystemTime;

use http::HeaderMap;
use serde::Deserialize;

use super::payload::{self, Account, Capped, Commit};
use super::{Content, Push, Ref, Refusal, content, header, signature, standard};
use crate::webhook::push::{commit, points_to, text};

#[derive(Deserialize)]
struct Payload {
    object_kind: Option<String>,
    event_name: Option<String>,
    r#ref: Option<String>,
    before: Option<String>,
    after: Option<String>,
    checkout_sha: Option<String>,
    project: Option<Project>,
    #[serde(default)]
    user_username: Account,
    #[serde(default)]
    user_name: Account,
    #[serde(default)]
    commits: Capped<Commit>,
    #[serde(default)]
    push_options: Options,
}

/// Whether `git push -o ci.skip` was used: `{"ci": {"skip": true}}`. Anything else counts as no option,
/// and never makes a delivery malformed.
#[derive(Default)]
struct Options(bool);

impl<'de> Deserialize<'de> for Options {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let options = serde_json::Value::deserialize(deserializer)?;
        let skip = options.pointer("/ci/skip");
        // The option has no value, or an empty one, in some versions.
        Ok(Self(skip.is_some_and(|it| {
            !matches!(it, serde_json::Value::Bool(false))
        })))
    }
}

#[derive(Deserialize)]
struct Project {
    path_with_namespace: Option<String>,
}

/// If any header of a signature with GitLab's signing token is present, that signature must be
/// valid. Otherwise the plain token is compared.
pub(super) fn signed(
    now: SystemTime,
    secrets: &[Vec<u8>],
    headers: &HeaderMap,
    body: &[u8],
) -> bool {
    if standard::present(headers) {
        return standard::signed(now, secrets, headers, body);
    }
    header::one(headers, "x-gitlab-token")
        .is_some_and(|given| signature::token(secrets, given.as_bytes()))
}

pub(super) fn push(json: &[u8]) -> Result<Content, Refusal> {
    let payload: Payload = payload::read(json)?;
    let kind = payload.object_kind.or(payload.event_name);
    if !matches!(kind.as_deref(), Some("push" | "tag_push") | None) {
        return Ok(Content::Ignored("the system hook is not a push".into()));
    }
    let (Some(full), Some(after)) = (payload.r#ref, payload.after) else {
        return Err(Refusal::malformed("the payload has no `ref` or no `after`"));
    };
    let Some(git_ref) = Ref::parse(&full)? else {
        return Ok(content(vec![]));
    };
    let new = commit(Some(&after))?;
    // For an annotated tag, `after` is the id of the tag object; `checkout_sha` is the commit, or null.
    let points_to = points_to(&git_ref, &new, payload.checkout_sha.as_deref())?;
    let new = points_to.clone().or(new);
    // At most 20 commits are listed, oldest first; the head is among them unless the push moved the
    // ref back.
    let mut listed = payload.commits.0.into_iter();
    let head = new
        .as_ref()
        .and_then(|new| listed.find(|commit| commit.id.as_deref() == Some(new.as_str())));
    let repository = payload.project.and_then(|it| it.path_with_namespace);
    let author = head
        .as_ref()
        .and_then(|head| head.author.as_ref()?.name.as_deref());
    Ok(content(vec![Some(Push {
        repository: text(&repository.unwrap_or_default(), 300).unwrap_or_default(),
        git_ref,
        old: commit(payload.before.as_deref())?,
        new,
        commit: points_to,
        message: head
            .as_ref()
            .and_then(|head| text(head.message.as_deref()?, 8192)),
        author: author.and_then(|name| text(name, 200)),
        pusher: payload.user_username.0.or(payload.user_name.0),
        forced: false,
        skip: payload.push_options.0,
    })]))
}
