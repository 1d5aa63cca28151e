//! The JSON inside a delivery's body, and the shapes that several forges share.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use http::HeaderMap;
use percent_encoding::percent_decode;
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::push::text;
use super::{Refusal, header};

/// The JSON bytes: the body itself, or the field `payload` of a form.
pub(super) fn json<'b>(headers: &HeaderMap, body: &'b [u8]) -> Result<Cow<'b, [u8]>, Refusal> {
    let kind = header::one(headers, "content-type").unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Ok(Cow::Borrowed(body));
    }
    let mut payloads = body
        .split(|b| *b == b'&')
        .filter_map(|field| field.strip_prefix(b"payload="));
    match (payloads.next(), payloads.next()) {
        (Some(value), None) => {
            let spaced: Vec<u8> = value
                .iter()
                .map(|b| if *b == b'+' { b' ' } else { *b })
                .collect();
            Ok(Cow::Owned(percent_decode(&spaced).collect()))
        }
        _ => Err(Refusal::malformed(
            "the form must have exactly one field `payload`",
        )),
    }
}

/// Parses a payload. Unused fields are skipped without being stored, so that a large body needs no more
/// memory than its own size.
pub(super) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    // Checked separately, because skipping a value does not check its text.
    let text = std::str::from_utf8(json)
        .map_err(|error| Refusal::malformed(&format!("the payload is not UTF-8: {error}")))?;
    // serde would also accept an array of a struct's fields.
    if matches!(json.trim_ascii_start().first(), Some(first) if *first != b'{') {
        return Err(Refusal::malformed("the payload is not a JSON object"));
    }
    serde_json::from_str(text).map_err(|error| {
        Refusal::malformed(&format!("the payload is not valid for this forge: {error}"))
    })
}

/// A list of which at most this many elements are kept, and whether the rest was dropped.
#[derive(Debug)]
pub(super) struct Capped<T>(pub Vec<T>, pub bool);

/// More commits than any forge lists in a payload.
const MOST: usize = 4096;

impl<T> Default for Capped<T> {
    fn default() -> Self {
        Self(Vec::new(), false)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Capped<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Capped<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Capped<T>, A::Error> {
                let mut list = Vec::new();
                while list.len() < MOST {
                    match array.next_element()? {
                        Some(element) => list.push(element),
                        None => return Ok(Capped(list, false)),
                    }
                }
                let mut cut = false;
                while array.next_element::<IgnoredAny>()?.is_some() {
                    cut = true;
                }
                Ok(Capped(list, cut))
            }

            fn visit_unit<E>(self) -> Result<Capped<T>, E> {
                Ok(Capped::default())
            }
        }
        deserializer.deserialize_any(List(PhantomData))
    }
}

/// The account that pushed, from a text or an object, by the first known name in it. Anything else
/// counts as no account, and never makes a delivery malformed.
#[derive(Debug, Default)]
pub(super) struct Account(pub Option<String>);

/// The fields in which forges put an account's name, those that people use in mentions first.
const NAMES: [&str; 6] = [
    "login",
    "username",
    "nickname",
    "name",
    "display_name",
    "displayName",
];

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Account;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an account")
            }

            fn visit_str<E>(self, name: &str) -> Result<Account, E> {
                Ok(Account(text(name, 200)))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Account, A::Error> {
                let mut best = (NAMES.len(), Account::default());
                while let Some(key) = map.next_key::<String>()? {
                    let rank = NAMES.iter().position(|name| *name == key);
                    let Some(rank) = rank.filter(|rank| *rank < best.0) else {
                        map.next_value::<IgnoredAny>()?;
                        continue;
                    };
                    let account = map.next_value::<Account>()?;
                    if account.0.is_some() {
                        best = (rank, account);
                    }
                }
                Ok(best.1)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Account, A::Error> {
                while array.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Account::default())
            }

            fn visit_unit<E>(self) -> Result<Account, E> {
                Ok(Account::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<Account, E> {
                Ok(Account::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<Account, E> {
                Ok(Account::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<Account, E> {
                Ok(Account::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<Account, E> {
                Ok(Account::default())
            }
        }
        deserializer.deserialize_any(Names)
    }
}

/// A commit as GitHub, GitLab, Gitea and Gogs describe it.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Commit {
    pub id: Option<String>,
    pub message: Option<String>,
    pub author: Option<Person>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Person {
    pub name: Option<String>,
}

#[derive(Debug, serde::Deserialize)]
pub(super) struct Repository {
    pub full_name: Option<String>,
}
