//! The style, the script and the icon, embedded. Their addresses change with their content, so browsers
//! keep them.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::compress;
use crate::api::ApiError;
use crate::api::auth::hashed;

pub struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
    hash: String,
    small: Vec<u8>,
}

impl Asset {
    fn new(name: &'static str, kind: &'static str, text: &'static str) -> Self {
        Self {
            name,
            kind,
            text,
            hash: hashed(text)[..16].to_owned(),
            small: compress::gzip(text.as_bytes()),
        }
    }

    pub fn path(&self) -> String {
        format!("/assets/{}/{}", self.hash, self.name)
    }
}

macro_rules! asset {
    ($constant:ident, $name:literal, $kind:literal) => {
        pub static $constant: LazyLock<Asset> =
            LazyLock::new(|| Asset::new($name, $kind, include_str!(concat!("assets/", $name))));
    };
}

asset!(STYLE, "style.css", "text/css; charset=utf-8");
asset!(SCRIPT, "script.js", "text/javascript; charset=utf-8");
asset!(ICON, "icon.svg", "image/svg+xml");

/// An asset by its name. One of another version of the agent is gone.
pub async fn show(
    Path((hash, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let all: [&Asset; 3] = [&STYLE, &SCRIPT, &ICON];
    let found = all.iter().find(|it| it.name == name && it.hash == hash);
    let Some(asset) = found else {
        return Err(crate::api::error::not_found().await);
    };
    let tag = format!("\"{hash}\"");
    let known = headers.get(header::IF_NONE_MATCH);
    let head = [
        (header::CONTENT_TYPE, asset.kind.to_owned()),
        (
            header::CACHE_CONTROL,
            "public, max-age=31536000, immutable".to_owned(),
        ),
        (header::ETAG, tag.clone()),
        (header::VARY, "accept-encoding".to_owned()),
    ];
    if known.is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, head).into_response());
    }
    Ok(match compress::is_wanted(&headers) {
        true => {
            let encoding = [(header::CONTENT_ENCODING, "gzip")];
            (head, encoding, asset.small.clone()).into_response()
        }
        false => (head, asset.text).into_response(),
    })
}
