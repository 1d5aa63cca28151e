//! `quiet`: the part of each day in which only what cannot wait is sent.

use jiff::Timestamp;
use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::file::Section;

/// From one time of day to another, which may be on the next day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quiet {
    from: Time,
    to: Time,
    zone: TimeZone,
}

const EXPECTED: &str = "two times of day such as \"22:00-07:00\"";

/// Reads `quiet` and the time zone that it is in.
pub(super) fn read(section: &mut Section<'_>) -> Option<Quiet> {
    let zone = section.read("timezone", |node| {
        const EXPECTED: &str = "the name of a time zone such as \"Europe/Berlin\"";
        let text = node.str(EXPECTED)?;
        TimeZone::get(text).ok().or_else(|| node.wrong(EXPECTED))
    });
    section.read("quiet", |node| {
        let times = times(node.str(EXPECTED)?);
        let (from, to) = times.or_else(|| node.wrong(EXPECTED))?;
        let zone = zone.unwrap_or(TimeZone::UTC);
        Some(Quiet { from, to, zone })
    })
}

fn times(text: &str) -> Option<(Time, Time)> {
    let (from, to) = text.split_once('-')?;
    let time = |text: &str| {
        let (hour, minute) = text.trim().split_once(':')?;
        let digits = |text: &str| text.len() == 2 && text.bytes().all(|it| it.is_ascii_digit());
        if !digits(hour) || !digits(minute) {
            return None;
        }
        Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
    };
    let (from, to) = (time(from)?, time(to)?);
    (from != to).then_some((from, to))
}

impl Quiet {
    /// If `now` is in it, when it ends; both in milliseconds since 1970.
    pub fn until(&self, now: i64) -> Option<i64> {
        let here = Timestamp::from_millisecond(now).ok()?;
        let here = here.to_zoned(self.zone.clone());
        let time = here.time();
        let is_quiet = match self.from < self.to {
            true => self.from <= time && time < self.to,
            false => self.from <= time || time < self.to,
        };
        if !is_quiet {
            return None;
        }
        let day = match time < self.to {
            true => here.date(),
            false => here.date().tomorrow().ok()?,
        };
        let end = day.to_datetime(self.to).to_zoned(self.zone.clone()).ok()?;
        Some(end.timestamp().as_millisecond())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(text: &str) -> Quiet {
        let (from, to) = times(text).unwrap();
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        Quiet { from, to, zone }
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_millisecond()
    }

    #[test]
    fn a_night_ends_on_the_next_day_also_when_the_clocks_are_set() {
        let night = quiet("22:00-07:00");
        let until = |now: &str| night.until(at(now));
        assert_eq!(until("2026-07-01T19:59:59Z"), None);
        assert_eq!(
            until("2026-07-01T20:00:00Z"),
            Some(at("2026-07-02T05:00:00Z"))
        );
        assert_eq!(
            until("2026-07-02T04:59:59Z"),
            Some(at("2026-07-02T05:00:00Z"))
        );
        assert_eq!(until("2026-07-02T05:00:00Z"), None);
        // The clocks go back in this night.
        assert_eq!(
            until("2026-10-24T21:00:00Z"),
            Some(at("2026-10-25T06:00:00Z"))
        );
    }

    #[test]
    fn a_part_of_one_day_ends_on_it() {
        let noon = quiet("12:00-13:30");
        assert_eq!(
            noon.until(at("2026-07-01T10:30:00Z")),
            Some(at("2026-07-01T11:30:00Z"))
        );
        assert_eq!(noon.until(at("2026-07-01T11:30:00Z")), None);
    }

    #[test]
    fn only_two_times_of_day_are_taken() {
        for wrong in [
            "",
            "22:00",
            "22:00-",
            "22-07",
            "24:00-07:00",
            "22:60-07:00",
            "7:00-8:00",
            "07:00-07:00",
        ] {
            assert_eq!(times(wrong), None, "{wrong}");
        }
    }
}
