//! What the variables of a Dockerfile stand for.

use std::collections::BTreeMap;

use super::instructions::name_length;

/// Variables by name; one without a value is known only to the builder.
#[derive(Debug, Default, Clone)]
pub(super) struct Values(BTreeMap<String, Option<String>>);

impl Values {
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Sets it to another one's value, if that is set.
    pub(super) fn take(&mut self, name: &str, from: &Values) {
        if let Some(value) = from.0.get(name) {
            self.set(name, value.clone());
        }
    }

    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        self.0.insert(name.to_owned(), value);
    }

    /// Replaces `$NAME`, `${NAME}` and the forms with `:-`, `-`, `:+` and `+`. `None` for what only the
    /// builder knows.
    pub(super) fn expand(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(before);
            let (inner, end) = match after.strip_prefix('{') {
                Some(inner) => inner.split_once('}')?,
                None => after.split_at(name_length(after)),
            };
            let (name, form) = inner.split_at(name_length(inner));
            let value = match self.0.get(name) {
                Some(value) => value.as_deref()?,
                None if name.is_empty() => return None,
                None => "",
            };
            let declared = self.has(name);
            if let Some(default) = form.strip_prefix(":-") {
                out.push_str(if value.is_empty() { default } else { value });
            } else if let Some(other) = form.strip_prefix(":+") {
                out.push_str(if value.is_empty() { "" } else { other });
            } else if let Some(default) = form.strip_prefix('-') {
                out.push_str(if declared { value } else { default });
            } else if let Some(other) = form.strip_prefix('+') {
                out.push_str(if declared { other } else { "" });
            } else if form.is_empty() {
                out.push_str(value);
            } else {
                return None;
            }
            rest = end;
        }
        out.push_str(rest);
        // A default may contain another variable.
        (!out.contains('$')).then_some(out)
    }
}
