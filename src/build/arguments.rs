//! What a Dockerfile's FROM lines know before its first ARG: the build's arguments, and what BuildKit says of the
//! platforms.

use std::collections::BTreeMap;

use super::values::Values;

/// What it says of each side; the rest of the name is after `BUILD` and `TARGET`.
const OF_A_PLATFORM: [&str; 5] = ["PLATFORM", "OS", "ARCH", "VARIANT", "OSVERSION"];

pub(super) struct Arguments<'a> {
    /// As they are sent to the builder.
    pub(super) given: &'a BTreeMap<String, String>,
    pub(super) global: Values,
}

impl<'a> Arguments<'a> {
    /// `engine`: its own platform, such as `linux/amd64`, if that is known; `target`: the one that is built for, if
    /// it is another.
    pub(super) fn new(
        given: &'a BTreeMap<String, String>,
        engine: Option<&str>,
        target: Option<&str>,
    ) -> Self {
        let mut global = Values::default();
        for (side, platform) in [("BUILD", engine), ("TARGET", target.or(engine))] {
            let known = platform.and_then(parts);
            for (place, what) in OF_A_PLATFORM.iter().enumerate() {
                let name = format!("{side}{what}");
                let known = known.as_ref().map(|parts| parts[place].clone());
                let value = given.get(&name).cloned().or(known);
                global.set(&name, value);
            }
        }
        // Newer ones know it, older ones do not.
        global.set("TARGETSTAGE", given.get("TARGETSTAGE").cloned());
        Self { given, global }
    }
}

/// In the order of the names, in BuildKit's spelling. `None` for a variant that only it can see.
fn parts(platform: &str) -> Option<[String; 5]> {
    let mut words = platform.split('/');
    let (os, arch, variant) = (words.next()?, words.next()?, words.next().unwrap_or(""));
    let (arch, variant) = match (arch, variant) {
        ("x86_64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
        ("aarch64", variant) => ("arm64", variant),
        ("i386", _) => ("386", ""),
        ("armhf", _) | ("arm", "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "") => ("arm", "v7"),
        other => other,
    };
    let whole = [os, arch, variant].map(str::to_owned);
    let shown = whole.iter().filter(|part| !part.is_empty()).cloned();
    let platform = shown.collect::<Vec<_>>().join("/");
    let [os, arch, variant] = whole;
    Some([platform, os, arch, variant, String::new()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_spelled_as_buildkit_does() {
        for (platform, expected) in [
            ("linux/amd64", Some("linux/amd64 linux amd64 -")),
            ("linux/x86_64/v1", Some("linux/amd64 linux amd64 -")),
            ("linux/amd64/v3", Some("linux/amd64/v3 linux amd64 v3-")),
            ("linux/arm64/v8", Some("linux/arm64 linux arm64 -")),
            ("linux/aarch64", Some("linux/arm64 linux arm64 -")),
            ("linux/arm", Some("linux/arm/v7 linux arm v7-")),
            ("linux/arm/v6", Some("linux/arm/v6 linux arm v6-")),
            ("linux/riscv64", Some("linux/riscv64 linux riscv64 -")),
            ("linux", None),
        ] {
            let parts = parts(platform);
            let shown = parts.map(|[all, os, arch, variant, version]| {
                format!("{all} {os} {arch} {variant}-{version}")
            });
            assert_eq!(shown.as_deref(), expected, "{platform}");
        }
    }

    #[test]
    fn an_argument_of_the_build_takes_the_place_of_a_platforms() {
        let given = BTreeMap::from([("TARGETARCH".to_owned(), "mine".to_owned())]);
        let all = |engine, target| {
            let arguments = Arguments::new(&given, engine, target);
            arguments
                .global
                .expand("$BUILDPLATFORM $TARGETARCH$TARGETVARIANT")
        };
        assert_eq!(
            all(Some("linux/amd64"), Some("linux/arm/v7")).as_deref(),
            Some("linux/amd64 minev7")
        );
        assert_eq!(all(None, Some("linux/arm/v7")), None);
    }
}
