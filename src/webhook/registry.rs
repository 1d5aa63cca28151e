//! Deliveries of registries, which say that an image was pushed. What they are about is only a hint: the
//! registry itself is asked what there is.

use std::time::SystemTime;

use http::HeaderMap;
use serde_json::Value;

use super::{Forge, Refusal, header, payload, signature};

/// The longest body, in bytes; registries send a few KiB.
const LONGEST: usize = 1 << 20;
/// The most tags that a delivery is believed to name.
const MOST: usize = 100;

/// A delivery whose sender knows one of the app's secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What was pushed, nothing if it does not say; or why nothing is to be deployed.
    pub pushed: Result<Vec<Pushed>, String>,
    /// Whether it comes again and again without a push: registries report each pull too, even ours.
    pub is_noise: bool,
}

/// A tag that was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The registry's name for the repository, such as `acme/hello`; `None` if the payload does not say.
    pub repository: Option<String>,
    pub tag: String,
}

/// Verifies the sender, and only then parses the body. A registry signs as its forge does (GitHub, Gitea,
/// Standard Webhooks), sends the secret itself as `Authorization` (Harbor and most others), or has it in
/// the address as `?token=` (Docker Hub, which can do nothing else).
pub fn receive(
    secrets: &[Vec<u8>],
    headers: &HeaderMap,
    query: Option<&str>,
    body: &[u8],
) -> Result<Notice, Refusal> {
    let knows = signed(secrets, headers, body)
        | authorized(secrets, headers)
        | query.is_some_and(|query| in_address(secrets, query));
    if !knows {
        return Err(Refusal::Unauthenticated);
    }
    if headers.get("x-github-event").is_some_and(|it| it == "ping") {
        return Ok(Notice {
            pushed: Err("ping: the webhook is set up".into()),
            is_noise: false,
        });
    }
    if body.len() > LONGEST {
        return Err(Refusal::malformed("the payload is larger than 1 MiB"));
    }
    let json = payload::json(headers, body)?;
    if json.trim_ascii().is_empty() {
        return Ok(Notice {
            pushed: Ok(Vec::new()),
            is_noise: false,
        });
    }
    let json = payload::read(&json)?;
    Ok(Notice {
        pushed: pushed(&json),
        is_noise: is_noise(&json),
    })
}

/// Whether it reports nothing but pulls: as the distribution project's registry does, or Harbor.
fn is_noise(json: &Value) -> bool {
    let events = json.get("events").and_then(Value::as_array);
    let is_pull = |it: &Value| matches!(it["action"].as_str(), Some("pull" | "mount"));
    events.is_some_and(|events| !events.is_empty() && events.iter().all(is_pull))
        || json["type"].as_str() == Some("PULL_ARTIFACT")
}

fn signed(secrets: &[Vec<u8>], headers: &HeaderMap, body: &[u8]) -> bool {
    let one = header::one(headers, "x-hub-signature-256");
    let by_forge = Forge::detect(headers)
        .is_some_and(|forge| forge.signed(SystemTime::now(), secrets, headers, body));
    by_forge | one.is_some_and(|given| signature::sha256(secrets, body, given))
}

fn authorized(secrets: &[Vec<u8>], headers: &HeaderMap) -> bool {
    header::one(headers, "authorization").is_some_and(|given| {
        let token = given.strip_prefix("Bearer ").unwrap_or(given);
        signature::token(secrets, token.as_bytes()) | signature::basic(secrets, given)
    })
}

fn in_address(secrets: &[Vec<u8>], query: &str) -> bool {
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    let token = pairs.find(|(name, _)| name == "token");
    token.is_some_and(|(_, token)| signature::token(secrets, token.as_bytes()))
}

fn pushed(json: &Value) -> Result<Vec<Pushed>, String> {
    let text = |path: &str| json.pointer(path).and_then(Value::as_str);
    let list = |path: &str| json.pointer(path).and_then(Value::as_array);
    let event = |name: &str| {
        format!(
            "the event `{}` does not deploy anything",
            name.escape_debug()
        )
    };
    // Harbor.
    if let Some(kind) = text("/type").filter(|_| json.get("event_data").is_some())
        && kind != "PUSH_ARTIFACT"
    {
        return Err(event(kind));
    }
    // Gitea's and GitHub's packages.
    if let Some(action) = text("/action")
        && !matches!(action, "created" | "published" | "updated" | "push")
    {
        return Err(event(action));
    }
    let mut found = Vec::new();
    let github = "package_version/container_metadata/tag/name";
    for path in [
        "/push_data/tag",
        &format!("/package/{github}"),
        &format!("/registry_package/{github}"),
        "/package/version",
        "/tag",
    ] {
        found.extend(text(path));
    }
    let resources = list("/event_data/resources").into_iter().flatten();
    found.extend(resources.filter_map(|it| it.pointer("/tag")?.as_str()));
    let repository = repository(json);
    let found = found.into_iter().map(|tag| (repository.clone(), tag));
    let mut found: Vec<_> = found.collect();
    // The registry of the distribution project itself, and what is built on it: one event for each layer,
    // and only that of the image has a tag.
    if let Some(events) = list("/events") {
        let pushes = events.iter().filter(|it| it["action"] == "push");
        let before = found.len();
        found.extend(pushes.filter_map(|it| {
            let tag = it.pointer("/target/tag")?.as_str()?;
            let repository = it.pointer("/target/repository").and_then(Value::as_str);
            Some((repository.map(str::to_owned), tag))
        }));
        if found.len() == before {
            return Err("no tag was pushed".into());
        }
    }
    let found = found.into_iter().filter(|(_, tag)| !tag.is_empty());
    let found = found.map(|(repository, tag)| Pushed {
        repository,
        tag: tag.to_owned(),
    });
    Ok(found.take(MOST).collect())
}

/// What Docker Hub, Harbor, GitHub and Gitea call the repository.
fn repository(json: &Value) -> Option<String> {
    let text = |path: &str| json.pointer(path).and_then(Value::as_str);
    let whole = text("/repository/repo_name").or(text("/event_data/repository/repo_full_name"));
    if let Some(whole) = whole {
        return Some(whole.to_owned());
    }
    ["/package", "/registry_package"].iter().find_map(|at| {
        let name = text(&format!("{at}/name"))?;
        let owner = text(&format!("{at}/namespace"))
            .or(text(&format!("{at}/owner/login")))
            .or(text(&format!("{at}/owner/username")))?;
        Some(format!("{owner}/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> Vec<Vec<u8>> {
        vec![b"old".to_vec(), b"s3cret".to_vec()]
    }

    fn with(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), value.parse().unwrap())])
    }

    #[test]
    fn only_who_knows_a_secret_is_heard() {
        let body = br#"{"tag": "1"}"#;
        let ask = |headers: &HeaderMap, query| receive(&secrets(), headers, query, body);
        let none = HeaderMap::new();
        for (headers, query) in [
            (with("authorization", "Bearer s3cret"), None),
            (with("authorization", "s3cret"), None),
            (with("authorization", "Basic eDpzM2NyZXQ="), None),
            (none.clone(), Some("a=b&token=s3cret")),
            (
                with(
                    "x-hub-signature-256",
                    "sha256=e238341ff2bf2ed329b37a444978fcac966445deba6c1f35f5140136d0c05255",
                ),
                None,
            ),
        ] {
            let heard = ask(&headers, query).unwrap();
            assert_eq!(tags(heard.pushed), Ok(vec!["1".to_owned()]));
        }
        for (headers, query) in [
            (none.clone(), None),
            (none.clone(), Some("token=")),
            (none, Some("token=wrong")),
            (with("authorization", "Bearer "), None),
            (with("authorization", "Bearer wrong"), None),
            (with("x-hub-signature-256", "sha256=00"), None),
        ] {
            assert_eq!(ask(&headers, query), Err(Refusal::Unauthenticated));
        }
        assert!(receive(&[], &with("authorization", ""), None, body).is_err());
    }

    fn tags(pushed: Result<Vec<Pushed>, String>) -> Result<Vec<String>, String> {
        pushed.map(|all| all.into_iter().map(|it| it.tag).collect())
    }

    #[test]
    fn a_pull_is_noise() {
        for (payload, noise) in [
            (
                json!({"events": [{"action": "pull"}, {"action": "pull"}]}),
                true,
            ),
            (json!({"type": "PULL_ARTIFACT", "event_data": {}}), true),
            (
                json!({"events": [{"action": "pull"}, {"action": "push"}]}),
                false,
            ),
            (json!({"events": []}), false),
            (json!({"type": "DELETE_ARTIFACT", "event_data": {}}), false),
            (json!({"tag": "1"}), false),
        ] {
            assert_eq!(is_noise(&payload), noise, "{payload}");
        }
    }

    #[test]
    fn each_registrys_repository_is_found() {
        let github = json!({"name": "hello", "namespace": "acme",
            "package_version": {"container_metadata": {"tag": {"name": "1"}}}});
        for payload in [
            json!({"push_data": {"tag": "1"}, "repository": {"repo_name": "acme/hello"}}),
            json!({"action": "published", "registry_package": github}),
            json!({"type": "PUSH_ARTIFACT", "event_data": {"resources": [{"tag": "1"}],
                   "repository": {"repo_full_name": "acme/hello"}}}),
            json!({"action": "created", "package": {"version": "1", "name": "hello",
                   "owner": {"login": "acme"}}}),
            json!({"events": [{"action": "push", "target": {"repository": "acme/other"}},
                              {"action": "push", "target": {"repository": "acme/hello", "tag": "1"}}]}),
        ] {
            let expected = Pushed {
                repository: Some("acme/hello".into()),
                tag: "1".into(),
            };
            assert_eq!(pushed(&payload), Ok(vec![expected]), "{payload}");
        }
    }

    #[test]
    fn each_registrys_tag_is_found() {
        let github = json!({"package_version": {"container_metadata": {"tag": {"name": "1"}}}});
        for payload in [
            json!({"push_data": {"tag": "1"}, "repository": {"repo_name": "acme/hello"}}),
            json!({"action": "published", "registry_package": github}),
            json!({"action": "published", "package": github}),
            json!({"type": "PUSH_ARTIFACT", "event_data": {"resources": [{"tag": "1"}]}}),
            json!({"action": "created", "package": {"type": "container", "version": "1"}}),
            json!({"events": [{"action": "pull", "target": {"tag": "0"}},
                              {"action": "push", "target": {"tag": "1"}}]}),
            json!({"tag": "1"}),
        ] {
            assert_eq!(
                tags(pushed(&payload)),
                Ok(vec!["1".to_owned()]),
                "{payload}"
            );
        }
        assert_eq!(pushed(&json!({})), Ok(vec![]));
        for payload in [
            json!({"type": "DELETE_ARTIFACT", "event_data": {"resources": [{"tag": "1"}]}}),
            json!({"action": "deleted", "package": {"version": "1"}}),
            json!({"events": [{"action": "pull"}]}),
            json!({"events": [{"action": "push", "target": {"repository": "acme/hello"}}]}),
        ] {
            assert!(pushed(&payload).is_err(), "{payload}");
        }
        let wrong = json!({"events": 1, "tag": [], "push_data": "x", "event_data": null});
        assert_eq!(pushed(&wrong), Ok(vec![]));
    }
}
