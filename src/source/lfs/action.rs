//! What an LFS server says of a file: where it is.

use std::collections::BTreeMap;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use url::Url;

use crate::source::transport::Failure;

/// Where a file is, and what has to be sent along.
#[derive(Deserialize)]
pub(super) struct Action {
    pub(super) href: String,
    #[serde(default)]
    pub(super) header: BTreeMap<String, String>,
}

impl Action {
    pub(super) fn target(&self) -> Result<(Url, HeaderMap), Failure> {
        let url = address(&self.href)?;
        Ok((url, headers(&self.header)))
    }
}

pub(super) fn address(text: &str) -> Result<Url, Failure> {
    let url = Url::parse(text).ok();
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| Failure::Unreachable("its Git LFS names an invalid address".into()))
}

fn headers(named: &BTreeMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in named.iter().take(50) {
        if let Ok(name) = HeaderName::try_from(name)
            && let Ok(mut value) = HeaderValue::try_from(value)
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    headers
}
