//! The same events as each forge sends them; the bodies follow the forges' documentation.

use std::time::SystemTime;

use base64::Engine;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};
use sha2::Sha256;

use super::*;
use crate::webhook::{Received, receive};

pub(in crate::webhook) const SECRET: &str = "only a test";
const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";
const COMMIT: &str = "3333333333333333333333333333333333333333";
const ZEROS: &str = "0000000000000000000000000000000000000000";

fn mac(parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

/// The headers with which this forge sends `body`, signed.
pub(in crate::webhook) fn sent(forge: Forge, event: &str, body: &[u8]) -> HeaderMap {
    let hex = hex::encode(mac(&[body]));
    let prefixed = format!("sha256={hex}");
    let base64 = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let basic = format!("Basic {}", base64(format!("cutover:{SECRET}").as_bytes()));
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let now = now.as_secs().to_string();
    let standard = mac(&[b"msg_1.", now.as_bytes(), b".", body]);
    let standard = format!("v1,{}", base64(&standard));
    let pairs: Vec<(&str, &str)> = match forge {
        // Forgejo and Gitea also send the headers of the projects that they were forked from.
        Forge::Forgejo => vec![
            ("x-forgejo-event", event),
            ("x-forgejo-signature", &hex),
            ("x-forgejo-delivery", "id-1"),
            ("x-gitea-event", event),
            ("x-gitea-signature", &hex),
            ("x-gogs-event", event),
            ("x-gogs-signature", &hex),
            ("x-github-event", event),
            ("x-hub-signature-256", &prefixed),
        ],
        Forge::Gitea => vec![
            ("x-gitea-event", event),
            ("x-gitea-signature", &hex),
            ("x-gitea-delivery", "id-1"),
            ("x-gogs-event", event),
            ("x-gogs-signature", &hex),
            ("x-github-event", event),
        ],
        Forge::Gogs => vec![
            ("x-gogs-event", event),
            ("x-gogs-signature", &hex),
            ("x-gogs-delivery", "id-1"),
            ("x-github-event", event),
        ],
        Forge::GitHub => vec![
            ("x-github-event", event),
            ("x-hub-signature-256", &prefixed),
            ("x-github-delivery", "id-1"),
        ],
        Forge::GitLab => vec![
            ("x-gitlab-event", event),
            ("x-gitlab-token", SECRET),
            ("x-gitlab-event-uuid", "id-1"),
        ],
        Forge::Bitbucket => vec![
            ("x-event-key", event),
            ("x-hook-uuid", "{u}"),
            ("x-hub-signature", &prefixed),
            ("x-request-uuid", "id-1"),
        ],
        Forge::BitbucketDataCenter => vec![
            ("x-event-key", event),
            ("x-hub-signature", &prefixed),
            ("x-request-id", "id-1"),
        ],
        Forge::Azure => vec![("authorization", &basic), ("x-vss-activityid", "id-1")],
        Forge::Standard => vec![
            ("webhook-id", "msg_1"),
            ("webhook-timestamp", &now),
            ("webhook-signature", &standard),
        ],
    };
    let pair =
        |(name, value): (&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.into_iter().map(pair).collect()
}

fn take(forge: Forge, event: &str, body: &Value) -> Result<Received, Refusal> {
    let body = body.to_string();
    let headers = sent(forge, event, body.as_bytes());
    receive(
        None,
        &[SECRET.as_bytes().to_vec()],
        &headers,
        body.as_bytes(),
    )
}

fn pushes(forge: Forge, body: &Value) -> Vec<Push> {
    let received = take(forge, push_event(forge), body).unwrap();
    assert_eq!(received.forge, forge);
    match received.content {
        Content::Pushes(pushes) => pushes,
        other => panic!("{forge}: {other:?}"),
    }
}

pub(in crate::webhook) fn push_event(forge: Forge) -> &'static str {
    match forge {
        Forge::GitLab => "Push Hook",
        Forge::Bitbucket => "repo:push",
        Forge::BitbucketDataCenter => "repo:refs_changed",
        Forge::Azure => "git.push",
        _ => "push",
    }
}

/// A push of one ref from `old` to `new`, in the format of `forge`. `full` is the ref's full name.
pub(in crate::webhook) fn body(
    forge: Forge,
    full: &str,
    old: Option<&str>,
    new: Option<&str>,
) -> Value {
    let (before, after) = (old.unwrap_or(ZEROS), new.unwrap_or(ZEROS));
    let commit = json!({"id": after, "message": "Say hello\n\nmore", "author": {"name": "Ada"}});
    let other = json!({"id": COMMIT, "message": "another", "author": {"name": "Bob"}});
    let head = if new.is_some() {
        commit.clone()
    } else {
        Value::Null
    };
    let listed = if new.is_some() {
        json!([other, commit.clone()])
    } else {
        json!([])
    };
    let (branch, short) = match full.strip_prefix("refs/tags/") {
        Some(tag) => (false, tag),
        None => (true, full.strip_prefix("refs/heads/").unwrap_or(full)),
    };
    let commented =
        json!([{"commitId": after, "comment": commit["message"], "author": {"name": "Ada"}}]);
    match forge {
        Forge::GitHub => json!({
            "ref": full, "before": before, "after": after, "forced": true, "commits": [],
            "head_commit": head, "repository": {"full_name": "acme/hello"},
            "pusher": {"name": "ada-l", "email": "ada@example.com"},
        }),
        Forge::Forgejo | Forge::Gitea => json!({
            "ref": full, "before": before, "after": after, "commits": listed, "head_commit": head,
            "repository": {"full_name": "acme/hello"},
            "pusher": {"id": 1, "full_name": "Ada", "login": "ada-l", "username": "other"},
        }),
        Forge::Gogs => json!({
            "ref": full, "before": before, "after": after, "commits": listed,
            "repository": {"full_name": "acme/hello"},
            "pusher": {"id": 1, "full_name": "Ada", "username": "ada-l"},
        }),
        Forge::GitLab => json!({
            "object_kind": if branch { "push" } else { "tag_push" }, "ref": full, "before": before,
            "after": after, "checkout_sha": new, "commits": listed, "total_commits_count": 25,
            "user_name": "Ada", "user_username": "ada-l",
            "project": {"path_with_namespace": "acme/hello"},
        }),
        Forge::Bitbucket => {
            let side = |hash: Option<&str>| {
                hash.map(|hash| {
                    json!({
                        "type": if branch { "branch" } else { "tag" }, "name": short,
                        "target": {"hash": hash, "message": "Say hello\n\nmore",
                                   "author": {"raw": "Ada <ada@example.com>"}},
                    })
                })
            };
            json!({
                "push": {"changes": [{"old": side(old), "new": side(new), "forced": true}]},
                "repository": {"full_name": "acme/hello"},
                "actor": {"type": "user", "display_name": "Ada", "nickname": "ada-l"},
            })
        }
        Forge::BitbucketDataCenter => json!({
            "actor": {"id": 1, "name": "ada-l", "displayName": "Ada"},
            "repository": {"slug": "hello", "project": {"key": "acme"}},
            "changes": [{"ref": {"id": full}, "fromHash": before, "toHash": after,
                         "type": match (old, new) { (_, None) => "DELETE", (None, _) => "ADD", _ => "UPDATE" }}],
            "toCommit": head,
        }),
        Forge::Azure => json!({
            "eventType": "git.push", "resource": {
                "refUpdates": [{"name": full, "oldObjectId": before, "newObjectId": after}],
                "commits": if new.is_some() { commented } else { json!([]) },
                "repository": {"name": "hello", "project": {"name": "acme"}},
                "pushedBy": {"displayName": "ada-l", "uniqueName": "ada@example.com"},
            },
        }),
        Forge::Standard => json!({"type": "push", "data": {
            "repository": "acme/hello", "ref": full, "old": old, "new": new, "forced": true,
            "message": "Say hello\n\nmore", "author": "Ada", "pusher": "ada-l",
        }}),
    }
}

#[test]
fn every_forge_says_the_same_push() {
    for forge in Forge::ALL {
        let body = body(forge, "refs/heads/feature/ünï", Some(OLD), Some(NEW));
        let push = &pushes(forge, &body)[0];
        assert_eq!(push.repository, "acme/hello", "{forge}");
        assert_eq!(push.git_ref, Ref::Branch("feature/ünï".into()), "{forge}");
        assert_eq!(push.old.as_ref().unwrap().as_str(), OLD, "{forge}");
        assert_eq!(push.new.as_ref().unwrap().as_str(), NEW, "{forge}");
        assert_eq!(
            push.message.as_deref(),
            Some("Say hello\n\nmore"),
            "{forge}"
        );
        assert_eq!(push.author.as_deref(), Some("Ada"), "{forge}");
        assert_eq!(push.pusher.as_deref(), Some("ada-l"), "{forge}");
        let tells = matches!(forge, Forge::GitHub | Forge::Bitbucket | Forge::Standard);
        assert_eq!(push.forced, tells, "{forge}");
    }
}

#[test]
fn an_account_of_any_shape_is_read_or_left_out() {
    for (pusher, name) in [
        (
            json!({"email": "x", "name": ["odd"], "displayName": "ada"}),
            Some("ada"),
        ),
        (json!({"displayName": "Ada", "login": "ada"}), Some("ada")),
        (json!(7), None),
        (json!([{"login": "ada"}, 1]), None),
        (json!({"login": null}), None),
        (json!(true), None),
        (json!("a\u{7}b"), Some("a\u{fffd}b")),
    ] {
        let mut push = body(Forge::GitHub, "refs/heads/main", None, Some(NEW));
        push["pusher"] = pusher;
        let read = &pushes(Forge::GitHub, &push)[0];
        assert_eq!(read.pusher.as_deref(), name);
    }
}

#[test]
fn every_forge_tells_creation_deletion_and_tags_apart() {
    for forge in Forge::ALL {
        let one = |full: &str, old, new| pushes(forge, &body(forge, full, old, new)).remove(0);
        let created = one("refs/heads/v1", None, Some(NEW));
        assert_eq!(
            (created.git_ref, created.old),
            (Ref::Branch("v1".into()), None),
            "{forge}"
        );
        let deleted = one("refs/heads/v1", Some(OLD), None);
        assert_eq!(
            (deleted.new, deleted.message),
            (
                None,
                if forge == Forge::Standard {
                    Some("Say hello\n\nmore".into())
                } else {
                    None
                }
            ),
            "{forge}"
        );
        let tag = one("refs/tags/main", None, Some(NEW));
        assert_eq!(tag.git_ref, Ref::Tag("main".into()), "{forge}");
        assert_eq!(tag.new.unwrap().as_str(), NEW, "{forge}");
        let gone = one("refs/tags/main", Some(OLD), None);
        assert_eq!(
            (gone.git_ref, gone.new),
            (Ref::Tag("main".into()), None),
            "{forge}"
        );
    }
}

#[test]
fn an_annotated_tag_leads_to_its_commit() {
    let mut github = body(Forge::GitHub, "refs/tags/v1", None, Some(NEW));
    github["head_commit"]["id"] = json!(COMMIT);
    assert_eq!(
        pushes(Forge::GitHub, &github)[0]
            .new
            .as_ref()
            .unwrap()
            .as_str(),
        COMMIT
    );
    let mut gitlab = body(Forge::GitLab, "refs/tags/v1", None, Some(NEW));
    gitlab["checkout_sha"] = json!(COMMIT);
    let push = &pushes(Forge::GitLab, &gitlab)[0];
    assert_eq!(push.new.as_ref().unwrap().as_str(), COMMIT);
    assert_eq!(push.message.as_deref(), Some("another"));
    gitlab["checkout_sha"] = Value::Null;
    assert_eq!(
        pushes(Forge::GitLab, &gitlab)[0]
            .new
            .as_ref()
            .unwrap()
            .as_str(),
        NEW
    );
    // Where the forge names the tag object alone, the commit is not known yet.
    for forge in [Forge::BitbucketDataCenter, Forge::Azure] {
        let tag = &pushes(forge, &body(forge, "refs/tags/v1", None, Some(NEW)))[0];
        assert_eq!(tag.commit, None, "{forge}");
        let branch = &pushes(forge, &body(forge, "refs/heads/v1", None, Some(NEW)))[0];
        assert_eq!(branch.commit, branch.new, "{forge}");
    }
    let mut gitea = body(Forge::Gitea, "refs/tags/v1", None, Some(NEW));
    gitea["head_commit"]["id"] = json!(COMMIT);
    let tag = &pushes(Forge::Gitea, &gitea)[0];
    assert_eq!(tag.commit.as_ref().unwrap().as_str(), COMMIT);
    assert_eq!(tag.new.as_ref().unwrap().as_str(), NEW);
}

#[test]
fn gitlab_hands_on_that_the_pusher_wants_nothing_run() {
    let mut gitlab = body(Forge::GitLab, "refs/heads/main", Some(OLD), Some(NEW));
    for (options, skip) in [
        (json!({}), false),
        (json!({"ci": {"skip": true}}), true),
        (json!({"ci": {"skip": ""}}), true),
        (json!({"ci": {"variable": {"A=b": 1}}}), false),
        (json!([1]), false),
        (Value::Null, false),
    ] {
        gitlab["push_options"] = options.clone();
        assert_eq!(pushes(Forge::GitLab, &gitlab)[0].skip, skip, "{options}");
    }
}

#[test]
fn several_refs_in_one_delivery_are_several_pushes() {
    let refs = ["refs/heads/a/b", "refs/tags/a/b", "refs/notes/x"];
    for (forge, list) in [
        (Forge::Bitbucket, "/push/changes"),
        (Forge::BitbucketDataCenter, "/changes"),
        (Forge::Azure, "/resource/refUpdates"),
    ] {
        let mut whole = body(forge, refs[0], Some(OLD), Some(NEW));
        let of = |full| {
            body(forge, full, Some(OLD), Some(NEW))
                .pointer(list)
                .unwrap()[0]
                .clone()
        };
        // Bitbucket Cloud has no third kind of ref, but could get one.
        let mut third = of(refs[2]);
        if forge == Forge::Bitbucket {
            third["new"]["type"] = json!("note");
        }
        *whole.pointer_mut(list).unwrap() = json!([of(refs[0]), of(refs[1]), third]);
        let found: Vec<Ref> = pushes(forge, &whole)
            .into_iter()
            .map(|push| push.git_ref)
            .collect();
        assert_eq!(
            found,
            [Ref::Branch("a/b".into()), Ref::Tag("a/b".into())],
            "{forge}"
        );
        *whole.pointer_mut(list).unwrap() = json!([]);
        let none = take(forge, push_event(forge), &whole).unwrap();
        assert!(matches!(none.content, Content::Ignored(_)), "{forge}");
    }
}

#[test]
fn a_head_beyond_the_listed_commits_leaves_the_message_out() {
    let mut gitlab = body(Forge::GitLab, "refs/heads/main", Some(OLD), Some(NEW));
    gitlab["commits"] = Value::Array(vec![json!({"id": COMMIT, "message": "x"}); 20]);
    let push = &pushes(Forge::GitLab, &gitlab)[0];
    assert_eq!(
        (push.new.as_ref().unwrap().as_str(), &push.message),
        (NEW, &None)
    );
    let many: Vec<Value> = (0..2048)
        .map(|_| json!({"id": COMMIT, "message": "x"}))
        .collect();
    for forge in [Forge::Gitea, Forge::Gogs, Forge::GitLab, Forge::GitHub] {
        let mut body = body(forge, "refs/heads/main", Some(OLD), Some(NEW));
        body["commits"] = Value::Array(many.clone());
        assert_eq!(
            pushes(forge, &body)[0].new.as_ref().unwrap().as_str(),
            NEW,
            "{forge}"
        );
    }
}

#[test]
fn a_form_of_gitea_is_signed_over_its_json() {
    let json = body(Forge::Gitea, "refs/heads/main", Some(OLD), Some(NEW)).to_string();
    let form: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &json)
        .finish();
    for forge in [Forge::Forgejo, Forge::Gitea, Forge::Gogs] {
        let with = |signed: &[u8]| {
            let mut headers = sent(forge, "push", signed);
            let form = "application/x-www-form-urlencoded".parse().unwrap();
            headers.insert("content-type", form);
            headers
        };
        let secrets = [SECRET.as_bytes().to_vec()];
        let good = receive(None, &secrets, &with(json.as_bytes()), form.as_bytes());
        assert!(
            matches!(good.unwrap().content, Content::Pushes(_)),
            "{forge}"
        );
        let outer = receive(None, &secrets, &with(form.as_bytes()), form.as_bytes());
        assert_eq!(outer, Err(Refusal::Unauthenticated), "{forge}");
    }
}

#[test]
fn no_forge_takes_what_is_not_signed() {
    let secrets = [b"another".to_vec(), SECRET.as_bytes().to_vec()];
    for forge in Forge::ALL {
        let body = body(forge, "refs/heads/main", Some(OLD), Some(NEW)).to_string();
        let body = body.as_bytes();
        let good = sent(forge, push_event(forge), body);
        assert!(receive(None, &secrets, &good, body).is_ok(), "{forge}");
        assert!(
            receive(Some(forge), &secrets, &good, body).is_ok(),
            "{forge}"
        );
        let refused = Err(Refusal::Unauthenticated);
        for wrong in [&[][..], &secrets[..1], &[vec![]]] {
            assert_eq!(receive(None, wrong, &good, body), refused, "{forge}");
        }
        for name in [
            "x-forgejo-signature",
            "x-gitea-signature",
            "x-gogs-signature",
            "x-hub-signature-256",
            "x-hub-signature",
            "x-gitlab-token",
            "authorization",
            "webhook-signature",
        ] {
            let mut twice = good.clone();
            if let Some(value) = good.get(name) {
                twice.append(name, value.clone());
                // Forgejo may sign under either name.
                if forge != Forge::Forgejo && (forge, name) != (Forge::Gitea, "x-gogs-signature") {
                    assert_eq!(
                        receive(None, &secrets, &twice, body),
                        refused,
                        "{forge} {name}"
                    );
                }
            }
        }
        for bad in ["", "sha256=", "sha1=", "v1,", "Basic "] {
            let mut headers = good.clone();
            let signed = |name: &str| {
                name.contains("signature") || name == "x-gitlab-token" || name == "authorization"
            };
            let names: Vec<_> = good
                .keys()
                .filter(|name| signed(name.as_str()))
                .cloned()
                .collect();
            for name in &names {
                headers.insert(name, bad.parse().unwrap());
            }
            assert_eq!(
                receive(None, &secrets, &headers, body),
                refused,
                "{forge} {bad:?}"
            );
            for name in &names {
                headers.remove(name);
            }
            assert_eq!(
                receive(None, &secrets, &headers, body),
                refused,
                "{forge} none"
            );
        }
        for other in Forge::ALL {
            let gitea = [Forge::Forgejo, Forge::Gitea, Forge::Gogs];
            let related = gitea.contains(&other) && gitea.contains(&forge)
                || (forge, other) == (Forge::Forgejo, Forge::GitHub)
                || (forge, other) == (Forge::Standard, Forge::GitLab)
                || [forge, other]
                    .iter()
                    .all(|it| matches!(it, Forge::Bitbucket | Forge::BitbucketDataCenter));
            if other != forge && !related {
                assert_eq!(
                    receive(Some(other), &secrets, &good, body),
                    refused,
                    "{forge} as {other}"
                );
            }
        }
    }
}

#[test]
fn a_signing_token_of_gitlab_must_hold_where_it_is_present() {
    let body = body(Forge::GitLab, "refs/heads/main", Some(OLD), Some(NEW)).to_string();
    let body = body.as_bytes();
    let secrets = [SECRET.as_bytes().to_vec()];
    let plain = sent(Forge::GitLab, "Push Hook", body);
    let mut signed = plain.clone();
    signed.extend(sent(Forge::Standard, "", body));
    assert!(receive(None, &secrets, &signed, body).is_ok());
    signed.remove("x-gitlab-token");
    assert!(receive(None, &secrets, &signed, body).is_ok());
    for name in standard::NAMES {
        let mut broken = plain.clone();
        broken.insert(name, "x".parse().unwrap());
        let refused = receive(None, &secrets, &broken, body);
        assert_eq!(
            refused,
            Err(Refusal::Unauthenticated),
            "{name}: no fall-back"
        );
    }
}

#[test]
fn standard_webhooks_that_come_with_another_credential_are_no_azure() {
    let body = body(Forge::Standard, "refs/heads/main", Some(OLD), Some(NEW)).to_string();
    let mut headers = sent(Forge::Standard, "push", body.as_bytes());
    assert_eq!(Forge::detect(&headers), Some(Forge::Standard));
    headers.insert("authorization", "Bearer for-the-gateway".parse().unwrap());
    assert_eq!(Forge::detect(&headers), Some(Forge::Standard));
}

#[test]
fn pings_and_other_events_are_not_pushes() {
    for (forge, event) in [
        (Forge::GitHub, "ping"),
        (Forge::BitbucketDataCenter, "diagnostics:ping"),
    ] {
        assert_eq!(
            take(forge, event, &json!({"test": true})).unwrap().content,
            Content::Ping
        );
    }
    for forge in Forge::ALL {
        let body = json!({"eventType": "other", "type": "other"});
        let other = take(forge, "other", &body).unwrap();
        assert_eq!(
            other.content,
            Content::Ignored("the event `other` does not deploy anything".into())
        );
        assert_eq!(other.event, "other");
    }
}
