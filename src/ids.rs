//! Names that cross a boundary: parsed once, typed from then on.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Why a text is not a valid name. The message says what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let parse: fn(&str) -> Result<(), InvalidId> = $parse;
                parse(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// The name of an app, as in `[apps.NAME]`: 1 to 40 of `a-z`, `0-9` and single dashes,
    /// neither first nor last. It becomes part of container and image names, so it is limited to what
    /// both allow.
    AppName,
    |text| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = (1..=40).contains(&text.len())
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        good.then_some(()).ok_or_else(|| {
            InvalidId(format!(
                "`{}` is not an app name: expected 1 to 40 of a-z, 0-9 and single dashes in between",
                text.escape_debug()
            ))
        })
    }
);

id!(
    /// The name of a service of an app, such as `web`. The rules are those of [`AppName`].
    ServiceName,
    |text| {
        let app = text.parse::<AppName>();
        app.map(drop).map_err(|_| {
            InvalidId(format!(
                "`{}` is not a service name: expected 1 to 40 of a-z, 0-9 and single dashes in between",
                text.escape_debug()
            ))
        })
    }
);

id!(
    /// A full commit id: 40 lower-case hex digits.
    CommitId,
    |text| {
        let good = text.len() == 40
            && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let is_long = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        good.then_some(()).ok_or_else(|| {
            let text = text.escape_debug();
            InvalidId(match is_long {
                true => format!(
                    "`{text}` is a SHA-256 id, which is not supported: use a repository with SHA-1 ids"
                ),
                false => format!("`{text}` is not a commit id: expected 40 hex digits"),
            })
        })
    }
);

id!(
    /// One attempt to make a commit, or an earlier release, live. Ids sort by creation time.
    DeploymentId,
    |text| stamped('d', text)
);
id!(
    /// The images and settings of an app's services; what a rollback goes back to.
    ReleaseId,
    |text| stamped('r', text)
);
id!(
    /// One stored webhook request.
    DeliveryId,
    |text| stamped('w', text)
);
id!(
    /// What became of one ref of a push.
    MovedRefId,
    |text| stamped('m', text)
);
id!(
    /// Something that a person had the agent do, other than to deploy.
    ActionId,
    |text| stamped('x', text)
);
id!(
    /// One agent's data folder: the value of the label `cutover.agent` on everything it creates.
    AgentId,
    |text| stamped('a', text)
);

impl ServiceName {
    /// The service of an app that does not name any.
    pub fn web() -> Self {
        Self("web".to_owned())
    }
}

impl DeploymentId {
    pub fn new() -> Self {
        Self(stamp('d'))
    }
}

impl ReleaseId {
    pub fn new() -> Self {
        Self(stamp('r'))
    }
}

impl DeliveryId {
    pub fn new() -> Self {
        Self(stamp('w'))
    }
}

/// When an id was made, in milliseconds since 1970.
pub fn stamped_at(id: &str) -> i64 {
    let digit = |byte| ALPHABET.iter().position(|it| *it == byte).unwrap_or(0) as u64;
    let stamp = id
        .bytes()
        .skip(1)
        .fold(0, |all, byte| all << 5 | digit(byte));
    (stamp >> 20) as i64
}

impl MovedRefId {
    pub fn new() -> Self {
        Self(stamp('m'))
    }

    /// When it was created, in milliseconds since 1970.
    pub fn created_at(&self) -> i64 {
        stamped_at(&self.0)
    }
}

impl ActionId {
    pub fn new() -> Self {
        Self(stamp('x'))
    }

    /// When it was made, in milliseconds since 1970.
    pub fn made_at(&self) -> i64 {
        stamped_at(&self.0)
    }
}

impl AgentId {
    pub fn new() -> Self {
        Self(stamp('a'))
    }
}

impl CommitId {
    /// The twelve digits that name an image.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

// Lower-case Crockford base 32: no letter that looks like a digit, and valid in container names.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A letter for the kind, 9 characters of milliseconds since 1970 (enough until the year 3084) and
/// 4 that start at random: ids of one kind sort by time, and those of one process never collide,
/// however many are created in a millisecond.
fn stamp(kind: char) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let random = getrandom::u32().expect("the operating system provides random bytes");
    // The upper half of the range is left for counting up.
    let fresh = (now.as_millis() as u64) << 20 | u64::from(random & 0x7_ffff);
    let rising = |last: u64| fresh.max(last + 1);
    let last = LAST.fetch_update(Relaxed, Relaxed, |last| Some(rising(last)));
    written(kind, rising(last.unwrap_or(0)))
}

/// A lower bound for the ids of this kind (its letter) created at `millis` since 1970 or later.
pub fn first_of(kind: char, millis: i64) -> String {
    written(kind, (millis.max(0) as u64) << 20)
}

fn written(kind: char, stamp: u64) -> String {
    let letters = (0..13)
        .rev()
        .map(|i| ALPHABET[(stamp >> (5 * i)) as usize & 31]);
    std::iter::once(kind)
        .chain(letters.map(char::from))
        .collect()
}

fn stamped(kind: char, text: &str) -> Result<(), InvalidId> {
    let good = text.len() == 14
        && text.starts_with(kind)
        && text.bytes().skip(1).all(|b| ALPHABET.contains(&b));
    good.then_some(()).ok_or_else(|| {
        InvalidId(format!(
            "`{}` is not an id: expected `{kind}` and 13 letters and digits",
            text.escape_debug()
        ))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_id_tells_its_time() {
        let millis = 1_790_000_000_123;
        let id: super::MovedRefId = super::first_of('m', millis).parse().unwrap();
        assert_eq!(id.created_at(), millis);
    }

    use super::*;

    #[test]
    fn app_names_are_safe_in_container_names() {
        for good in ["hello", "a", "0", "my-app-2"] {
            assert_eq!(good.parse::<AppName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(41);
        for bad in [
            "", "-a", "a-", "a--b", "A", "a b", "a/b", "a.b", "ä", "a\n", &long,
        ] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_commit_id_is_forty_hex_digits() {
        let id: CommitId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        assert_eq!(id.short(), "0123456789ab");
        for bad in [
            "HEAD",
            "0123456789ab",
            &"g".repeat(40),
            &"A".repeat(40),
            "--upload-pack=x",
        ] {
            assert!(bad.parse::<CommitId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids_made_at_once_differ_and_rise() {
        let ids: Vec<_> = (0..20_000).map(|_| DeliveryId::new()).collect();
        assert!(ids.windows(2).all(|two| two[0] < two[1]));
    }

    #[test]
    fn stamped_ids_parse_back_sort_by_time_and_keep_their_kind() {
        let first = DeploymentId::new();
        std::thread::sleep(std::time::Duration::from_millis(2));
        let second = DeploymentId::new();
        assert!(first < second);
        assert_eq!(first.as_str().parse::<DeploymentId>().unwrap(), first);
        assert!(first.as_str().parse::<ReleaseId>().is_err());
        let action: ActionId = first_of('x', 1_700_000_000_123).parse().unwrap();
        assert_eq!(action.made_at(), 1_700_000_000_123);
    }
}
