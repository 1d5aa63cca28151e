//! The two requests of a fetch over HTTP.

use url::Url;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What the repository has.
    Refs,
    /// What we want of it.
    Pack,
}

impl Step {
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Refs => "application/x-git-upload-pack-advertisement",
            Self::Pack => "application/x-git-upload-pack-result",
        }
    }

    pub fn url(self, base: &Url) -> Url {
        let mut url = base.clone();
        let path = base.path().trim_end_matches('/');
        let (path, query) = match self {
            Self::Refs => (format!("{path}/info/refs"), Some("service=git-upload-pack")),
            Self::Pack => (format!("{path}/git-upload-pack"), None),
        };
        url.set_path(&path);
        url.set_query(query);
        url.set_fragment(None);
        url
    }
}
