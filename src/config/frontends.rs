//! `build.frontends`: which programs may read a Dockerfile in place of the engine's own parser.

use toml::de::DeValue;

use super::Pattern;
use super::file::Node;

const HUB: &str = "docker.io/";

/// What becomes of a Dockerfile's `# syntax=` line.
#[derive(Debug, Clone)]
pub enum Frontends {
    /// It is not followed: the engine's own parser reads every Dockerfile.
    Builtin,
    /// It is followed if one of these fits.
    Allowed(Vec<Pattern>),
}

impl Default for Frontends {
    /// What those release who make BuildKit.
    fn default() -> Self {
        let usual = ["docker/dockerfile:*", "docker/dockerfile-upstream:*"];
        Self::Allowed(usual.iter().filter_map(|it| pattern(it)).collect())
    }
}

impl Frontends {
    pub fn allow(&self, image: &str) -> bool {
        let image = tagged(image);
        match self {
            Self::Builtin => false,
            Self::Allowed(all) => all.iter().any(|pattern| pattern.matches(&image)),
        }
    }
}

pub(super) fn frontends(node: Node<'_>) -> Option<Frontends> {
    const EXPECTED: &str = "an array of images that may read Dockerfiles, such as [\"docker/dockerfile:*\"], or \
                            \"builtin\" for the engine's own parser alone";
    if let DeValue::String(text) = node.value.get_ref() {
        return match &**text {
            "builtin" => Some(Frontends::Builtin),
            _ => node.wrong(EXPECTED),
        };
    }
    let all = node.array(EXPECTED)?;
    let all = all.iter().map(|node| {
        let text = node.str("the name of an image such as \"docker/dockerfile:*\"")?;
        pattern(text).or_else(|| node.wrong(
            "the name of an image such as \"docker/dockerfile:1\", in which `*` stands for anything but `/`",
        ))
    });
    let all: Option<Vec<_>> = all.collect();
    all.map(Frontends::Allowed)
}

fn pattern(text: &str) -> Option<Pattern> {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/:@*".contains(c);
    if text.is_empty() || text.starts_with(['/', ':', '@']) || !text.chars().all(good) {
        return None;
    }
    let name = short(text.strip_suffix(":*").unwrap_or(text));
    Pattern::parse(&match is_bare(name) {
        true => format!("{name}[:@]*"),
        false => name.to_owned(),
    })
    .ok()
}

/// The name as it is usually written, with its tag.
fn tagged(image: &str) -> String {
    match is_bare(image) {
        true => format!("{}:latest", short(image)),
        false => short(image).to_owned(),
    }
}

/// Whether it has no tag and no digest.
fn is_bare(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or(image);
    !last.contains([':', '@']) && !last.ends_with('*')
}

fn short(image: &str) -> &str {
    let name = image.strip_prefix("index.").unwrap_or(image);
    let name = name.strip_prefix(HUB).unwrap_or(image);
    name.strip_prefix("library/").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frontend_is_allowed_by_name_and_by_tag_if_one_is_given() {
        let of =
            |all: &[&str]| Frontends::Allowed(all.iter().map(|it| pattern(it).unwrap()).collect());
        let usual = Frontends::default();
        for (allowed, image, expected) in [
            (&usual, "docker/dockerfile", true),
            (&usual, "docker/dockerfile:1.7-labs", true),
            (&usual, "docker.io/docker/dockerfile:1", true),
            (&usual, "index.docker.io/docker/dockerfile:1", true),
            (&usual, "docker/dockerfile:1@sha256:00", true),
            (&usual, "docker/dockerfile-upstream:master", true),
            (&usual, "docker/dockerfile@sha256:00", true),
            (&usual, "docker/dockerfiles:1", false),
            (&usual, "evil.example/docker/dockerfile:1", false),
            (&usual, "docker.io.evil.example/docker/dockerfile:1", false),
            (&usual, "dockerfile:1", false),
            (&of(&["docker/dockerfile:1"]), "docker/dockerfile:1", true),
            (
                &of(&["docker/dockerfile:1"]),
                "docker/dockerfile:1.7",
                false,
            ),
            (
                &of(&["docker.io/docker/dockerfile"]),
                "docker/dockerfile:2",
                true,
            ),
            (
                &of(&["docker/dockerfile:*"]),
                "docker/dockerfile@sha256:00",
                true,
            ),
            (
                &of(&["reg.example:5000/acme/*"]),
                "reg.example:5000/acme/x:1",
                true,
            ),
            (
                &of(&["reg.example:5000/acme/*"]),
                "reg.example:5000/acme/x/y:1",
                false,
            ),
            (
                &of(&["reg.example:5000/**"]),
                "reg.example:5000/acme/x/y",
                true,
            ),
            (&of(&[]), "docker/dockerfile:1", false),
            (&Frontends::Builtin, "docker/dockerfile:1", false),
        ] {
            assert_eq!(allowed.allow(image), expected, "{image}");
        }
        for bad in ["", "/x", "a b", "[x", "{a,b}", "https://a.example/b?"] {
            assert!(pattern(bad).is_none(), "{bad}");
        }
    }
}
