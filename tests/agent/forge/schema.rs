//! What the forges' documentation says of a request's fields.

use http::HeaderMap;
use serde_json::Value;

/// What a field has to be.
pub enum Is {
    /// A string of at most so many characters, not empty.
    Text(usize),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// `http://` or `https://`, at most so long.
    Url(usize),
    Boolean,
    /// Exactly that.
    Exactly(Value),
    /// 40 hex digits.
    Commit,
    /// Any JSON object.
    Object,
}

/// A field: its name, whether it must be there, and what it is.
pub type Field = (&'static str, bool, Is);

/// The request's body has the required fields, none that is not documented, and good values.
pub fn check(body: &Value, fields: &[Field]) -> Result<(), String> {
    let object = body.as_object().ok_or("the body is no JSON object")?;
    for key in object.keys() {
        if !fields.iter().any(|(name, _, _)| name == key) {
            return Err(format!("`{key}` is not documented"));
        }
    }
    for (name, required, is) in fields {
        match object.get(*name) {
            None if *required => return Err(format!("`{name}` is missing")),
            None => {}
            Some(value) => fits(value, is).map_err(|why| format!("`{name}` is {value}: {why}"))?,
        }
    }
    Ok(())
}

fn fits(value: &Value, is: &Is) -> Result<(), String> {
    let text = value.as_str().unwrap_or_default();
    let good = match is {
        Is::Text(most) => (1..=*most).contains(&text.chars().count()),
        Is::OneOf(names) => names.contains(&text),
        Is::Url(most) => {
            text.len() <= *most
                && url::Url::parse(text).is_ok_and(|url| url.scheme().starts_with("http"))
        }
        Is::Boolean => value.is_boolean(),
        Is::Exactly(expected) => value == expected,
        Is::Commit => is_commit(text),
        Is::Object => value.is_object(),
    };
    match (good, is) {
        (true, _) => Ok(()),
        (false, Is::Text(most)) => Err(format!("expected 1 to {most} characters")),
        (false, Is::OneOf(names)) => Err(format!("expected one of {names:?}")),
        (false, Is::Exactly(expected)) => Err(format!("expected {expected}")),
        (false, _) => Err("it has the wrong form".into()),
    }
}

pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The header is there, once, with this value.
pub fn header(headers: &HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let all: Vec<_> = headers.get_all(name).iter().collect();
    match all.as_slice() {
        [one] if *one == value => Ok(()),
        // The value may be a secret of a test, which is nobody's.
        other => Err(format!(
            "the header `{name}` is {other:?}, expected {value}"
        )),
    }
}

/// A request's query.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn new(text: &str) -> Self {
        Self(
            url::form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// No other parameters are there.
    pub fn allow(&self, known: &[&str]) -> Result<(), String> {
        let unknown = self
            .0
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()));
        match unknown {
            Some((name, _)) => Err(format!("the parameter `{name}` is not documented")),
            None => Ok(()),
        }
    }
}
