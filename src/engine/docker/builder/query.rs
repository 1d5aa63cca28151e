//! What is to be built, as the query of `POST /build`.

use serde_json::json;
use url::form_urlencoded::Serializer;

use super::attributes::arguments;
use crate::engine::BuildSpec;

/// `dockerfile`: the Dockerfile among the files of the request; if absent, the builder gets all files through the
/// session.
pub(super) fn query(
    spec: &BuildSpec<'_>,
    session: Option<&str>,
    dockerfile: Option<&str>,
) -> String {
    let mut query = Serializer::new(String::new());
    let mut add = |name: &str, value: &str| {
        query.append_pair(name, value);
    };
    // BuildKit.
    add("version", "2");
    add("dockerfile", dockerfile.unwrap_or(spec.dockerfile));
    add("t", spec.name);
    add("rm", "1");
    add("forcerm", "1");
    add("buildargs", &json!(arguments(spec)).to_string());
    if !spec.cache_from.is_empty() {
        add("cachefrom", &json!(spec.cache_from).to_string());
    }
    add("labels", &json!(spec.labels).to_string());
    if spec.no_cache {
        add("nocache", "1");
    }
    if spec.pull {
        add("pull", "1");
    }
    if let Some(target) = spec.target {
        add("target", target);
    }
    if let Some(platform) = spec.platform {
        add("platform", platform);
    }
    if let Some(network) = spec.network {
        add("networkmode", network);
    }
    for (name, address) in spec.extra_hosts {
        add("extrahosts", &format!("{name}:{address}"));
    }
    if let Some(bytes) = spec.shm_size {
        add("shmsize", &bytes.to_string());
    }
    if let Some(session) = session {
        add("session", session);
    }
    if dockerfile.is_none() {
        add("remote", "client-session");
    }
    query.finish()
}
