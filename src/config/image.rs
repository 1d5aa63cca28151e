//! `image`: an app whose image comes from a registry, in place of a repository.

use std::fmt;
use std::str::FromStr;

/// Docker Hub, where a name without a registry is.
const HUB: &str = "docker.io";
const TAG: &str = "latest";
const EXPECTED: &str = "the name of an image such as \"registry.example.com/acme/hello:1\"";

/// The name of an image in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Without tag and digest.
    pub name: String,
    /// What its maintainers move to another image.
    pub tag: String,
    /// `sha256:…`: the image itself, whatever the tag points to.
    pub digest: Option<String>,
}

impl Image {
    /// Where the registry answers.
    pub fn registry(&self) -> &str {
        match self.name.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
            _ => HUB,
        }
    }

    /// The name within the registry, such as `acme/hello`.
    pub fn repository(&self) -> &str {
        let host = self.registry();
        let within = self.name.strip_prefix(host);
        within
            .and_then(|it| it.strip_prefix('/'))
            .unwrap_or(&self.name)
    }

    /// The name by its digest, or else by its tag.
    pub fn pinned(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name),
            None => format!("{}:{}", self.name, self.tag),
        }
    }

    /// The name with everything that Docker would add to it.
    pub fn canonical(&self) -> String {
        match self.registry() {
            HUB if !self.name.contains('/') => format!("{HUB}/library/{}:{}", self.name, self.tag),
            HUB if !self.name.starts_with(HUB) => format!("{HUB}/{}:{}", self.name, self.tag),
            _ => format!("{}:{}", self.name, self.tag),
        }
    }

    /// What another tag, digest or whole name stands for. Another image than that of deploy.toml is
    /// refused: whoever may deploy does not decide what an app is.
    pub fn other(&self, text: &str) -> Result<Self, String> {
        let text = match text {
            _ if text.starts_with([':', '@']) => format!("{}{text}", self.name),
            _ if text.contains(['/', ':', '@']) || text == self.name => text.to_owned(),
            _ => format!("{}:{text}", self.name),
        };
        let other: Self = text.parse()?;
        match other.name == self.name {
            true => Ok(other),
            false => Err(format!(
                "a tag or digest of `{}`, which is the app's image in deploy.toml",
                self.name
            )),
        }
    }
}

/// The error says what was expected.
impl FromStr for Image {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let slash = rest.rfind('/').map_or(0, |at| at + 1);
        let (name, tag) = match rest[slash..].find(':') {
            Some(at) => (&rest[..slash + at], Some(&rest[slash + at + 1..])),
            None => (rest, None),
        };
        let good = text.len() <= 255
            && is_name(name)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        match good {
            true => Ok(Self {
                name: name.to_owned(),
                tag: tag.unwrap_or(TAG).to_owned(),
                digest: digest.map(str::to_owned),
            }),
            false => Err(EXPECTED.to_owned()),
        }
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.tag)?;
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

fn is_name(name: &str) -> bool {
    let parts: Vec<_> = name.split('/').collect();
    parts.iter().enumerate().all(|(at, part)| {
        let is_host = at == 0 && parts.len() > 1;
        let good = |c: char| {
            c.is_ascii_lowercase()
                || c.is_ascii_digit()
                || "._-".contains(c)
                || is_host && (c == ':' || c.is_ascii_uppercase())
        };
        let ends = [part.chars().next(), part.chars().next_back()];
        let bounded = ends
            .iter()
            .all(|end| end.is_some_and(|c| c.is_ascii_alphanumeric()));
        bounded && part.chars().all(good)
    })
}

fn is_tag(tag: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let first = tag
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    first && tag.len() <= 128 && tag.chars().all(good)
}

fn is_digest(digest: &str) -> bool {
    let hex = digest.strip_prefix("sha256:");
    hex.is_some_and(|hex| {
        hex.len() == 64
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_its_parts() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, registry, name, tag) in [
            ("hello", "docker.io", "hello", "latest"),
            ("acme/hello:v1", "docker.io", "acme/hello", "v1"),
            (
                "ghcr.io/acme/hello",
                "ghcr.io",
                "ghcr.io/acme/hello",
                "latest",
            ),
            (
                "127.0.0.1:5000/hello:1.2-x",
                "127.0.0.1:5000",
                "127.0.0.1:5000/hello",
                "1.2-x",
            ),
            ("localhost/a/b/c", "localhost", "localhost/a/b/c", "latest"),
        ] {
            for digest in [None, Some(digest.clone())] {
                let end = digest.as_ref().map_or(String::new(), |it| format!("@{it}"));
                let image: Image = format!("{text}{end}").parse().unwrap();
                assert_eq!((image.registry(), image.name.as_str()), (registry, name));
                assert_eq!((image.tag.as_str(), &image.digest), (tag, &digest));
                assert_eq!(image.to_string().parse::<Image>().unwrap(), image);
            }
        }
        for (text, expected) in [
            ("node", "docker.io/library/node:latest"),
            ("acme/hello:1", "docker.io/acme/hello:1"),
            ("ghcr.io/acme/hello", "ghcr.io/acme/hello:latest"),
        ] {
            assert_eq!(text.parse::<Image>().unwrap().canonical(), expected);
        }
        for bad in [
            "",
            "Hello",
            "a:",
            "a:-x",
            "a b",
            "a/",
            "/a",
            "a//b",
            "a@sha256:12",
            "a:b:c",
            "-a",
            "https://a.example/b",
            "a\n",
            "$(x)",
            "a@sha512:0",
        ] {
            assert!(bad.parse::<Image>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_the_same_image_may_be_asked_for() {
        let image: Image = "reg.example:5000/acme/hello:1".parse().unwrap();
        let digest = format!("sha256:{}", "0a".repeat(32));
        let other = |text: &str| image.other(text).map(|it| it.to_string());
        for text in ["2", ":2", "reg.example:5000/acme/hello:2"] {
            assert_eq!(
                other(text).unwrap(),
                "reg.example:5000/acme/hello:2",
                "{text}"
            );
        }
        let pinned = format!("reg.example:5000/acme/hello:latest@{digest}");
        assert_eq!(other(&format!("@{digest}")).unwrap(), pinned);
        for text in ["reg.example:5000/acme/other:1", "evil/hello", "$x", ""] {
            assert!(other(text).is_err(), "{text}");
        }
    }
}
