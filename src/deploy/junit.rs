//! Results of tests in the XML that JUnit began with and most test runners can write.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use crate::printable::{cut, printable};
use crate::store::results::Results;

/// How many names of failed tests are kept, and how many characters of each.
const NAMES: usize = 20;
const LENGTH: usize = 200;

/// What all the files say together. The error says why they say nothing.
pub fn parse(files: &[Vec<u8>]) -> Result<Results, String> {
    let mut results = Results::default();
    for file in files {
        add(&mut results, file)?;
    }
    match results.tests {
        0 => Err("it has no test case in JUnit's XML".to_owned()),
        _ => Ok(results),
    }
}

/// A test of which the end has not come yet.
struct Open {
    name: String,
    depth: usize,
    failed: bool,
    skipped: bool,
}

fn add(results: &mut Results, file: &[u8]) -> Result<(), String> {
    // In another encoding only names suffer.
    let text = String::from_utf8_lossy(file);
    let mut reader = Reader::from_str(&text);
    let mut open: Option<Open> = None;
    let mut depth = 0usize;
    loop {
        let event = reader.read_event();
        match event.map_err(|error| format!("it is not XML: {error}"))? {
            Event::Start(tag) => {
                depth += 1;
                begin(&mut open, &tag, depth);
            }
            Event::Empty(tag) => {
                begin(&mut open, &tag, depth + 1);
                end(&mut open, depth + 1, results);
            }
            Event::End(_) => {
                end(&mut open, depth, results);
                depth = depth.saturating_sub(1);
            }
            Event::Eof if depth > 0 => return Err("its XML ends in the middle".to_owned()),
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

fn begin(open: &mut Option<Open>, tag: &BytesStart<'_>, depth: usize) {
    match (tag.local_name().as_ref(), open) {
        ("testcase", open @ None) => {
            *open = Some(Open {
                name: name(tag),
                depth,
                failed: false,
                skipped: false,
            });
        }
        ("failure" | "error", Some(test)) => test.failed = true,
        ("skipped", Some(test)) => test.skipped = true,
        _ => {}
    }
}

fn end(open: &mut Option<Open>, depth: usize, results: &mut Results) {
    let Some(test) = open.take_if(|test| test.depth == depth) else {
        return;
    };
    results.tests += 1;
    results.skipped += u64::from(test.skipped && !test.failed);
    if test.failed {
        results.failed += 1;
        if results.failures.len() < NAMES {
            results.failures.push(test.name);
        }
    }
}

/// `class.name`, on one line.
fn name(tag: &BytesStart<'_>) -> String {
    let attribute = |key: &str| {
        let found = tag.try_get_attribute(key).ok().flatten()?;
        let value = found
            .normalized_value(XmlVersion::Implicit1_0)
            .ok()?
            .into_owned();
        Some(value).filter(|value| !value.is_empty())
    };
    let name = attribute("name").unwrap_or_else(|| "a test without a name".to_owned());
    let whole = match attribute("classname") {
        Some(class) => format!("{class}.{name}"),
        None => name,
    };
    let line = printable(&whole).replace(['\n', '\t'], " ");
    cut(&line, LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Results, String> {
        parse(&[text.as_bytes().to_vec()])
    }

    #[test]
    fn what_runners_write_is_counted() {
        let results = of(r#"<?xml version="1.0" encoding="utf-8"?>
            <testsuites tests="99"><testsuite name="s" failures="77">
                <properties><property name="testcase" value="x"/></properties>
                <testcase classname="a.B" name="adds &lt;1&gt;" time="0.1"/>
                <testcase classname="a.B" name="fails"><failure message="no">trace</failure></testcase>
                <testcase name="breaks"><error/><system-out><![CDATA[<testcase/>]]></system-out></testcase>
                <testcase name="waits"><skipped/></testcase>
            </testsuite></testsuites>"#);
        let results = results.unwrap();
        assert_eq!((results.tests, results.failed, results.skipped), (4, 2, 1));
        assert_eq!(results.failures, ["a.B.fails", "breaks"]);
        let two = parse(&[b"<testcase/>".to_vec(), b"<testcase/>".to_vec()]);
        assert_eq!(two.unwrap().tests, 2);
    }

    #[test]
    fn hostile_files_are_refused_or_cost_little() {
        for text in [
            "",
            "no xml",
            "<a><b></a>",
            "<testcase>",
            "<testcase",
            "\0\u{1}<",
            "<a/>",
        ] {
            assert!(of(text).is_err(), "{text:?}");
        }
        // Entities of the document's own are not expanded.
        let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;'>]>\
                    <x><testcase name='&b;'><failure>&b;</failure></testcase></x>";
        assert_eq!(of(bomb).unwrap().failures, ["a test without a name"]);
        let deep = format!(
            "{}<testcase/>{}",
            "<a>".repeat(100_000),
            "</a>".repeat(100_000)
        );
        assert_eq!(of(&deep).unwrap().tests, 1);
        let long = format!(
            "<testcase name='{}\u{1b}[31m\n'><error/></testcase>",
            "x".repeat(9000)
        );
        let name = of(&long).unwrap().failures.remove(0);
        assert!(
            name.chars().count() <= LENGTH + 1 && !name.contains('\u{1b}'),
            "{name}"
        );
        let many = "<testcase name='x'><failure/></testcase>".repeat(5000);
        let many = of(&format!("<s>{many}</s>")).unwrap();
        assert_eq!((many.failed, many.failures.len()), (5000, NAMES));
    }
}
