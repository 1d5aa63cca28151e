//! Deliveries of every forge, as they are sent: which are accepted, and which are refused.

mod random_damage;
mod wrong_values;

use std::collections::BTreeSet;
use std::path::PathBuf;

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, HeaderValue};
use sha2::Sha256;

use super::*;
use crate::ids::CommitId;

const SECRET: &[u8] = b"it is only a test";
const OLD: &str = "1111111111111111111111111111111111111111";
const NEW: &str = "2222222222222222222222222222222222222222";

fn hmac_hex(body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET)
        .unwrap()
        .chain_update(body);
    hex::encode(mac.finalize().into_bytes())
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (
            name.parse::<HeaderName>().unwrap(),
            HeaderValue::from_str(value).unwrap(),
        )
    };
    pairs.iter().map(pair).collect()
}

fn github(event: &str, body: &[u8]) -> Result<Received, Refusal> {
    let signature = format!("sha256={}", hmac_hex(body));
    let headers = headers(&[
        ("x-github-event", event),
        ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("x-hub-signature-256", &signature),
        ("content-type", "application/json"),
    ]);
    receive(None, &[SECRET.to_vec()], &headers, body)
}

fn push(git_ref: &str, before: &str, after: &str) -> String {
    serde_json::json!({
        "ref": git_ref, "before": before, "after": after, "forced": false,
        "repository": { "full_name": "acme/hello" },
        "head_commit": { "message": "Say hello\n\nand more", "author": { "name": "Ada" } },
    })
    .to_string()
}

fn only_push(received: Received) -> Push {
    match received.content {
        Content::Pushes(pushes) => pushes.into_iter().next().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_push_is_read() {
    let body = push("refs/heads/feature/a-b", OLD, NEW);
    let received = github("push", body.as_bytes()).unwrap();
    assert_eq!(
        (received.forge.to_string().as_str(), received.event.as_str()),
        ("github", "push")
    );
    assert_eq!(
        received.delivery.as_deref(),
        Some("72d3162e-cc78-11e3-81ab-4c9367dc0958")
    );
    let push = only_push(received);
    assert_eq!(push.git_ref, Ref::Branch("feature/a-b".into()));
    assert_eq!(push.old.unwrap().as_str(), OLD);
    assert_eq!(push.new.unwrap().as_str(), NEW);
    assert_eq!(push.message.as_deref(), Some("Say hello\n\nand more"));
    assert_eq!(push.author.as_deref(), Some("Ada"));
}

#[test]
fn a_tag_a_creation_and_a_deletion_are_told_apart() {
    let zeros = "0".repeat(40);
    let tag = only_push(github("push", push("refs/tags/main", &zeros, NEW).as_bytes()).unwrap());
    assert_eq!((tag.git_ref, tag.old), (Ref::Tag("main".into()), None));
    let gone = only_push(github("push", push("refs/heads/main", OLD, &zeros).as_bytes()).unwrap());
    assert_eq!((gone.git_ref, gone.new), (Ref::Branch("main".into()), None));
    let note = github("push", push("refs/notes/commits", OLD, NEW).as_bytes()).unwrap();
    assert!(matches!(note.content, Content::Ignored(_)));
}

#[test]
fn a_form_is_signed_as_it_is_and_read_from_its_payload() {
    let json = push("refs/heads/main", OLD, NEW);
    let form: String = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &json)
        .finish();
    let signature = format!("sha256={}", hmac_hex(form.as_bytes()));
    let with = |signature: &str| {
        headers(&[
            ("x-github-event", "push"),
            ("x-hub-signature-256", signature),
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
        ])
    };
    let secrets = [SECRET.to_vec()];
    let received = receive(None, &secrets, &with(&signature), form.as_bytes()).unwrap();
    assert_eq!(only_push(received).new.unwrap().as_str(), NEW);

    let of_the_json = format!("sha256={}", hmac_hex(json.as_bytes()));
    let refused = receive(None, &secrets, &with(&of_the_json), form.as_bytes());
    assert_eq!(refused, Err(Refusal::Unauthenticated));
}

#[test]
fn without_a_good_signature_nothing_is_read() {
    let body = push("refs/heads/main", OLD, NEW);
    let good = format!("sha256={}", hmac_hex(body.as_bytes()));
    let sha1 = "sha1=0123456789012345678901234567890123456789";
    let cases: [&[(&str, &str)]; 8] = [
        &[],
        &[("x-github-event", "push")],
        &[("x-hub-signature-256", &good)],
        &[("x-github-event", "push"), ("x-hub-signature", sha1)],
        &[("x-github-event", "push"), ("x-hub-signature-256", sha1)],
        &[("x-github-event", "push"), ("x-hub-signature-256", "")],
        &[
            ("x-github-event", "push"),
            ("x-hub-signature-256", "sha256="),
        ],
        &[
            ("x-github-event", "push"),
            ("x-hub-signature-256", &good[7..]),
        ],
    ];
    for case in cases {
        let refused = receive(None, &[SECRET.to_vec()], &headers(case), body.as_bytes());
        assert_eq!(refused, Err(Refusal::Unauthenticated), "{case:?}");
    }
    let good = headers(&[("x-github-event", "push"), ("x-hub-signature-256", &good)]);
    assert!(receive(None, &[SECRET.to_vec()], &good, body.as_bytes()).is_ok());
    // No secret is configured: nobody can have signed with it.
    assert_eq!(
        receive(None, &[], &good, body.as_bytes()),
        Err(Refusal::Unauthenticated)
    );
    let bad_json = receive(None, &[SECRET.to_vec()], &good, b"{");
    assert_eq!(
        bad_json,
        Err(Refusal::Unauthenticated),
        "signature before syntax"
    );
}

#[test]
fn what_is_not_a_delivery_is_malformed_and_never_a_panic() {
    let good = push("refs/heads/main", OLD, NEW);
    let deep = "[".repeat(100_000);
    let cases: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"\xff\xfe".to_vec(),
        good[..good.len() - 1].into(),
        good.replace("acme", "ac\u{0}me").into_bytes(), // a bare NUL is not JSON
        [&good.as_bytes()[..10], b"\xc3\x28", &good.as_bytes()[10..]].concat(),
        good.replace(NEW, "HEAD").into_bytes(),
        good.replace(NEW, &NEW[1..]).into_bytes(),
        good.replace("\"refs/heads/main\"", "7").into_bytes(),
        good.replace("\"refs/heads/main\"", "[\"refs/heads/main\"]")
            .into_bytes(),
        good.replace("\"Say hello\\n\\nand more\"", "{}")
            .into_bytes(),
        good.replace("\"Ada\"", "\"\\ud800\"").into_bytes(),
        good.replacen('{', "{\"ref\":\"refs/heads/other\",", 1)
            .into_bytes(),
        deep.into_bytes(),
    ];
    for body in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
        assert!(
            matches!(github("push", &body), Err(Refusal::Malformed(_))),
            "{shown}"
        );
    }
    assert!(matches!(
        github("ping", b"\"\xff\""),
        Err(Refusal::Malformed(_))
    ));
}

#[test]
fn other_events_are_ignored_with_a_reason() {
    assert_eq!(
        github("ping", b"{\"zen\":\"Keep it\"}").unwrap().content,
        Content::Ping
    );
    let issue = github("issues", b"{}").unwrap();
    assert_eq!(
        issue.content,
        Content::Ignored("the event `issues` does not deploy anything".into())
    );
}

/// Every recorded body, if the fixtures are available, with what it must contain: a ref, and the
/// first digits of the new commit or `-` for a deletion; or no push at all.
#[test]
fn real_payloads_say_what_they_say() {
    let folder = std::env::var_os("CUTOVER_FIXTURES").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures"),
        PathBuf::from,
    );
    let folder = folder.join("webhooks");
    let mut unread: BTreeSet<PathBuf> = BTreeSet::new();
    for group in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(group.path())
            .into_iter()
            .flatten()
            .flatten()
        {
            unread.insert(file.path());
        }
    }
    if unread.is_empty() {
        eprintln!("skipped: there are no payloads in {}", folder.display());
        return;
    }
    for line in include_str!("payloads.txt").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, event, expected) = (words[0], words[1], words[2..].join(" "));
        let path = folder.join(name);
        let Ok(body) = std::fs::read(&path) else {
            eprintln!("skipped: `{name}` is not there");
            continue;
        };
        unread.remove(&path);
        let forge = match name.split('/').next().unwrap() {
            "github-octokit" => Forge::GitHub,
            "stash" => Forge::BitbucketDataCenter,
            name => name.parse().unwrap(),
        };
        let event = match event {
            "-" => forge::tests::push_event(forge),
            event => &event.replace('_', " "),
        };
        let headers = forge::tests::sent(forge, event, &body);
        let secrets = [forge::tests::SECRET.as_bytes().to_vec()];
        let received =
            receive(None, &secrets, &headers, &body).unwrap_or_else(|e| panic!("{name}: {e}"));
        let said = match received.content {
            Content::Ping => "ping".to_owned(),
            Content::Ignored(_) => "ignored".to_owned(),
            Content::Pushes(pushes) => {
                let said = pushes.iter().map(|push| {
                    let id = |id: &Option<CommitId>| {
                        id.as_ref()
                            .map_or("-".to_owned(), |id| id.short()[..7].to_owned())
                    };
                    let author = push.author.as_deref().unwrap_or("-").replace(' ', "_");
                    let (full, old, new) = (push.git_ref.full(), id(&push.old), id(&push.new));
                    format!("{} {full} {old} {new} {author}", push.repository)
                });
                said.collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(said, expected, "{name}");
    }
    assert!(unread.is_empty(), "no line of the table for {unread:?}");
}
