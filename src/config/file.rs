//! The text of deploy.toml as a tree in which every value knows its position. Reading a value of
//! the wrong type records a problem and continues, so that all problems are found in one run.

use std::cell::RefCell;
use std::fmt::Display;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Problem, similar};

/// What all values of one file have in common.
pub(super) struct File<'t> {
    pub text: &'t str,
    /// The folder against which relative paths in the file are resolved; absolute.
    pub folder: &'t Path,
    pub problems: RefCell<Vec<Problem>>,
    /// The sections that were read, with the keys that each of them has.
    sections: RefCell<Vec<(String, Vec<&'static str>)>>,
    unknown: RefCell<Vec<Unknown<'t>>>,
}

/// A key that its section does not have.
struct Unknown<'t> {
    /// The section's path.
    path: String,
    name: &'t str,
    start: usize,
}

impl<'t> File<'t> {
    pub fn new(text: &'t str, folder: &'t Path) -> Self {
        Self {
            text,
            folder,
            problems: RefCell::default(),
            sections: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Reports every key that no section has read, with where it belongs or the most similar one that
    /// its section has. Done at the end, when all sections are known.
    pub fn report_unknown(&self) {
        let sections = self.sections.borrow();
        for Unknown { path, name, start } in self.unknown.take() {
            let place = match path.as_str() {
                "" => "at the top of the file".to_owned(),
                path => format!("in `[{path}]`"),
            };
            let known = sections.iter().find(|section| section.0 == path);
            let known = known.map_or(&[][..], |(_, known)| known);
            let hint = match (elsewhere(&sections, &path, name), nearest(name, known)) {
                (Some(section), _) => format!("it belongs {section}"),
                (None, Some(near)) => format!("did you mean `{near}`?"),
                (None, None) => format!("expected one of {}", list(known)),
            };
            let text = format!("unknown key `{}` {place}: {hint}", name.escape_debug());
            self.report(start, text);
        }
    }

    pub fn report(&self, offset: usize, text: String) {
        let at = Some(place(self.text, offset));
        self.problems.borrow_mut().push(Problem { at, text });
    }
}

/// Converts a byte offset in the text to a line and a column (in characters), both counted from 1.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

/// A table whose keys are read one by one; [`Section::done`] reports those that were not read.
pub(super) struct Section<'a> {
    file: &'a File<'a>,
    /// `apps.hello.build`; empty for the root of the file.
    path: String,
    /// The byte offset at which the section begins; missing keys are reported there.
    start: usize,
    table: Option<&'a DeTable<'a>>,
    known: Vec<&'static str>,
    /// It is not a table, which has already been reported.
    misshapen: bool,
}

impl<'a> Section<'a> {
    pub fn root(file: &'a File<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            file,
            path: String::new(),
            start: 0,
            table: Some(table),
            known: Vec::new(),
            misshapen: false,
        }
    }

    pub fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reports a problem with the section itself.
    pub fn report(&self, text: String) {
        self.file.report(self.start, text);
    }

    /// Whether `key` is present, valid or not.
    pub fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether it is not a table, which has already been reported.
    pub fn is_misshapen(&self) -> bool {
        self.misshapen
    }

    /// The value of `key`, if present.
    pub fn node(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.known.push(key);
        let (place, value) = self.table?.get_key_value(key)?;
        Some(Node {
            file: self.file,
            path: self.key(key),
            start: place.span().start,
            value,
        })
    }

    /// The value of `key`, parsed by `parse`; `None` if it is absent, or invalid and reported.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.node(key).and_then(parse)
    }

    /// Like [`Section::read`], but reports a missing `key`.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(Node<'a>) -> Option<T>,
    ) -> Option<T> {
        let Some(node) = self.node(key) else {
            if !self.misshapen {
                self.report(format!(
                    "`{}` is missing: expected {expected}",
                    self.key(key)
                ));
            }
            return None;
        };
        parse(node)
    }

    /// The table at `key`; an empty section if it is absent.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        match self.node(key) {
            Some(node) => node.section(),
            None => Section {
                file: self.file,
                path: self.key(key),
                start: self.start,
                table: None,
                known: Vec::new(),
                misshapen: false,
            },
        }
    }

    /// Notes every key that was not read, for [`File::report_unknown`].
    pub fn done(self) {
        let keys = self.table.into_iter().flatten().map(|(key, _)| key);
        let unknown = keys.filter(|key| !self.known.contains(&key.get_ref().as_ref()));
        let unknown = unknown.map(|key| Unknown {
            path: self.path.clone(),
            name: key.get_ref(),
            start: key.span().start,
        });
        self.file.unknown.borrow_mut().extend(unknown);
        self.file
            .sections
            .borrow_mut()
            .push((self.path, self.known));
    }
}

/// One value, with its name and position.
pub(super) struct Node<'a> {
    pub file: &'a File<'a>,
    /// `apps.hello.build.timeout`
    pub path: String,
    /// The byte offset of its key, or of the value itself in an array.
    pub start: usize,
    pub value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Node<'a> {
    /// Reports the value and what was expected instead.
    pub fn wrong<T>(&self, expected: impl Display) -> Option<T> {
        let text = format!("`{}` is {}: expected {expected}", self.path, self.shown());
        self.report(text)
    }

    /// Like [`Node::wrong`], but shows only the kind of the value, which may be a secret.
    pub fn wrong_unshown<T>(&self, expected: impl Display) -> Option<T> {
        let kind = kind(self.value.get_ref());
        self.report(format!("`{}` is {kind}: expected {expected}", self.path))
    }

    /// Reports a problem with this value in the caller's words.
    pub fn report<T>(&self, text: String) -> Option<T> {
        self.file.report(self.value.span().start, text);
        None
    }

    /// The value as shown in a message: a short scalar as it is written, anything else by its kind.
    fn shown(&self) -> String {
        let value = self.value.get_ref();
        let written = self.file.text.get(self.value.span()).unwrap_or_default();
        let long = written.len() > 80 || written.contains(['\n', '`']);
        match value {
            DeValue::Array(_) | DeValue::Table(_) => kind(value).into(),
            _ if long => format!("{} ({} bytes)", kind(value), written.len()),
            _ => format!(
                "`{}`",
                written.escape_debug().to_string().replace("\\\"", "\"")
            ),
        }
    }

    pub fn str(&self, expected: impl Display) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) => Some(text),
            _ => self.wrong(expected),
        }
    }

    /// A whole number from `least` to `most`.
    pub fn integer(&self, least: u64, most: u64) -> Option<u64> {
        let number = match self.value.get_ref() {
            DeValue::Integer(n) => u64::from_str_radix(n.as_str(), n.radix()).ok(),
            _ => None,
        };
        match number {
            Some(n) if (least..=most).contains(&n) => Some(n),
            _ => self.wrong(format!("a whole number from {least} to {most}")),
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match self.value.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => self.wrong("`true` or `false`"),
        }
    }

    pub fn float(&self) -> Option<f64> {
        match self.value.get_ref() {
            DeValue::Float(n) => n.as_str().parse().ok(),
            DeValue::Integer(n) => n.as_str().parse().ok().filter(|_| n.radix() == 10),
            _ => None,
        }
    }

    /// The elements of an array.
    pub fn array(&self, expected: impl Display) -> Option<Vec<Node<'a>>> {
        let DeValue::Array(values) = self.value.get_ref() else {
            return self.wrong_unshown(expected);
        };
        let node = |(i, value): (usize, &'a Spanned<DeValue<'a>>)| Node {
            file: self.file,
            path: format!("{}[{i}]", self.path),
            start: value.span().start,
            value,
        };
        Some(values.iter().enumerate().map(node).collect())
    }

    /// The keys and values of a table whose keys are chosen by the user.
    pub fn entries(&self, expected: impl Display) -> Option<Vec<(&'a str, Node<'a>)>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return self.wrong_unshown(expected);
        };
        let entry = |(key, value): (&'a Spanned<toml::de::DeString<'a>>, _)| {
            let name: &'a str = key.get_ref();
            let node = Node {
                file: self.file,
                path: join(&self.path, name),
                start: key.span().start,
                value,
            };
            (name, node)
        };
        Some(table.iter().map(entry).collect())
    }

    /// This value as a section. If it is not a table, that is reported and the section is empty.
    pub fn section(self) -> Section<'a> {
        let table = match self.value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => self.wrong(format!("a section `[{}]`", self.path)),
        };
        Section {
            file: self.file,
            path: self.path,
            start: self.start,
            table,
            known: Vec::new(),
            misshapen: table.is_none(),
        }
    }
}

/// `path.key`, with quotes around a key that needs them.
fn join(path: &str, key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    let key = match !key.is_empty() && key.chars().all(bare) {
        true => key.to_owned(),
        false => format!("\"{}\"", key.escape_debug()),
    };
    match path {
        "" => key,
        path => format!("{path}.{key}"),
    }
}

/// The kind of a value, as messages name it.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The known key that `name` was most likely meant to be.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    similar::nearest(&name.replace('-', "_"), known.iter().copied())
}

/// The sections of the same app, or those of no app, that have a key of this name.
fn elsewhere(sections: &[(String, Vec<&str>)], path: &str, name: &str) -> Option<String> {
    let owner = |path: &str| match path.strip_prefix("apps.") {
        Some(rest) => rest.split('.').next().map(str::to_owned),
        None => None,
    };
    let mut others: Vec<_> = (sections.iter())
        .filter(|(other, known)| {
            other != path && known.contains(&name) && owner(other) == owner(path)
        })
        .map(|(other, _)| match other.as_str() {
            "" => "at the top of the file".to_owned(),
            other => format!("in `[{other}]`"),
        })
        .collect();
    others.dedup();
    (!others.is_empty() && others.len() <= 3).then(|| others.join(" or "))
}

/// The keys in backticks, separated by commas.
fn list(known: &[&str]) -> String {
    let quoted: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
    quoted.join(", ")
}
