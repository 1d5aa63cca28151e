//! `[apps.NAME.cron.NAME]`: commands that run in the live image at certain times.

use std::collections::BTreeMap;
use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::command::{Command, command};
use super::file::{Node, Section};
use super::values::positive;
use crate::ids::ServiceName;

#[derive(Debug, Clone)]
pub struct Cron {
    pub schedule: Schedule,
    pub command: Command,
    /// A run that takes longer is stopped.
    pub timeout: Duration,
    pub overlap: Overlap,
    /// Whether a run whose time passed while no agent ran is made up for, once.
    pub missed: bool,
}

/// What becomes of a run whose time comes while the one before is still going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overlap {
    /// It does not take place.
    Skip,
    /// It waits for the other's end.
    Queue,
    /// The other is stopped.
    Kill,
}

/// The times at which a command runs.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// As in deploy.toml.
    pub text: String,
    /// An IANA name.
    pub timezone: String,
    cron: croner::Cron,
    zone: TimeZone,
}

impl Schedule {
    /// The error says what was expected.
    pub fn parse(text: &str, timezone: &str) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        if fields != 5 && !text.starts_with('@') {
            return Err(format!(
                "five fields (minute, hour, day of month, month, day of week) such as \"0 3 * * *\", \
                 has {fields}"
            ));
        }
        let parser = CronParser::builder()
            .seconds(Seconds::Disallowed)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(text);
        let cron = cron.map_err(|error| match wrong_field(&parser, text) {
            Some((name, field)) => {
                format!(
                    "five fields such as \"0 3 * * *\" (the {name} `{field}` is wrong: {error})"
                )
            }
            None => format!("five fields such as \"0 3 * * *\" ({error})"),
        })?;
        let zone = TimeZone::get(timezone)
            .map_err(|_| "the name of a time zone such as \"Europe/Berlin\"".to_owned())?;
        let schedule = Self {
            text: text.to_owned(),
            timezone: timezone.to_owned(),
            cron,
            zone,
        };
        match schedule.next(0) {
            Some(_) => Ok(schedule),
            None => Err("a time that exists (this one never occurs)".to_owned()),
        }
    }

    /// The first time after this one; both in milliseconds since 1970.
    pub fn next(&self, after: i64) -> Option<i64> {
        let next = self.cron.find_next_occurrence(&self.at(after)?, false);
        Some(next.ok()?.timestamp().as_millisecond())
    }

    /// The last time up to this one.
    pub fn last(&self, until: i64) -> Option<i64> {
        let last = self.cron.find_previous_occurrence(&self.at(until)?, true);
        Some(last.ok()?.timestamp().as_millisecond())
    }

    fn at(&self, millis: i64) -> Option<Zoned> {
        let time = Timestamp::from_millisecond(millis).ok()?;
        Some(time.to_zoned(self.zone.clone()))
    }
}

/// The first field that is wrong by itself, with its name.
fn wrong_field<'t>(parser: &CronParser, text: &'t str) -> Option<(&'static str, &'t str)> {
    const NAMES: [&str; 5] = [
        "minute",
        "hour",
        "day of the month",
        "month",
        "day of the week",
    ];
    let mut fields = NAMES.into_iter().zip(text.split_whitespace()).enumerate();
    fields.find_map(|(index, (name, field))| {
        let mut alone = ["*"; 5];
        alone[index] = field;
        parser
            .parse(&alone.join(" "))
            .is_err()
            .then_some((name, field))
    })
}

pub(super) fn crons(node: Node<'_>) -> Option<BTreeMap<ServiceName, Cron>> {
    let mut all = BTreeMap::new();
    for (name, node) in node.entries("a section for each command, such as `cron.cleanup`")? {
        let parsed = name.parse::<ServiceName>();
        if let Err(error) = &parsed {
            let text = error.to_string().replace("service name", "name");
            node.file.report(node.start, text);
        }
        let cron = cron(node.section());
        all.extend(parsed.ok().zip(cron));
    }
    Some(all)
}

fn cron(mut section: Section<'_>) -> Option<Cron> {
    let timezone = section.read("timezone", |node| {
        const EXPECTED: &str = "the name of a time zone such as \"Europe/Berlin\"";
        let text = node.str(EXPECTED)?;
        match TimeZone::get(text) {
            Ok(_) => Some(text.to_owned()),
            Err(_) => node.wrong(EXPECTED),
        }
    });
    let timezone = timezone.unwrap_or("UTC".into());
    let missing = "when it runs, such as \"0 3 * * *\"";
    let schedule = section.required("schedule", missing, |node| {
        let text = node.str(
            "a text with five fields (minute, hour, day of month, month, day of week) such as \"0 3 * * *\"",
        )?;
        Schedule::parse(text, &timezone).map_or_else(|expected| node.wrong(expected), Some)
    });
    let command = section.required("command", "the command that runs", command);
    let timeout = section.read("timeout", |node| positive(&node));
    let overlap = section.read("overlap", |node| {
        const EXPECTED: &str = "\"skip\", \"queue\" or \"kill\"";
        match node.str(EXPECTED)? {
            "skip" => Some(Overlap::Skip),
            "queue" => Some(Overlap::Queue),
            "kill" => Some(Overlap::Kill),
            _ => node.wrong(EXPECTED),
        }
    });
    let missed = section.read("missed", |node| {
        const EXPECTED: &str = "\"run\" or \"skip\"";
        match node.str(EXPECTED)? {
            "run" => Some(true),
            "skip" => Some(false),
            _ => node.wrong(EXPECTED),
        }
    });
    section.done();
    Some(Cron {
        schedule: schedule?,
        command: command?,
        timeout: timeout.unwrap_or(Duration::from_secs(3600)),
        overlap: overlap.unwrap_or(Overlap::Skip),
        missed: missed.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn times(text: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(text, zone).unwrap();
        let mut at = millis(from);
        let mut next = || {
            at = schedule.next(at).unwrap();
            assert_eq!(schedule.last(at + 59_000), Some(at));
            Timestamp::from_millisecond(at).unwrap().to_string()
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_day_has_one_three_o_clock_whatever_the_clocks_do() {
        // 02:30 does not exist on 29 March 2026 in Berlin, and comes twice on 25 October.
        assert_eq!(
            times("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3),
            [
                "2026-03-28T01:30:00Z",
                "2026-03-29T01:00:00Z",
                "2026-03-30T00:30:00Z"
            ]
        );
        let autumn = times("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2);
        assert_eq!(autumn, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        assert_eq!(
            times("0 3 29 2 *", "UTC", "2026-01-01T00:00:00Z", 2),
            ["2028-02-29T03:00:00Z", "2032-02-29T03:00:00Z"]
        );
        // Monday is 1.
        let monday = times("0 0 * * 1", "UTC", "2026-11-28T00:00:00Z", 1);
        assert_eq!(monday, ["2026-11-30T00:00:00Z"]);
    }

    #[test]
    fn what_is_no_schedule_says_what_one_is() {
        for (text, zone, said) in [
            ("0 0 3 * * *", "UTC", "five fields"),
            ("* * *", "UTC", "five fields"),
            ("61 * * * *", "UTC", "five fields"),
            ("0 0 30 2 *", "UTC", "never occurs"),
            ("0 3 * * *", "Mars/Base", "time zone"),
            ("", "UTC", "five fields"),
        ] {
            let error = Schedule::parse(text, zone).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
