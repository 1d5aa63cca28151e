//! Times as HTTP writes them.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

pub fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    written(now.map_or(0, |it| it.as_secs()))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub fn written(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    // Of the calendar that begins on 1 March of the year 0, with eras of 400 years.
    let since = days + 719_468;
    let (era, of_era) = (since / 146_097, since % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = match month {
        ..10 => (era * 400 + year, month + 2),
        _ => (era * 400 + year + 1, month - 10),
    };
    let (weekday, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// What puts times in their order, of one that is written like that; `None` of any other.
pub fn order(text: &str) -> Option<(u32, usize, u32, &str)> {
    let mut words = text.split(' ').skip(1);
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|it| *it == month)?;
    let time = words.next().filter(|it| it.len() == 8)?;
    let is_whole = words.next() == Some("GMT") && words.next().is_none();
    let order = (year.parse().ok()?, month, day.parse().ok()?, time);
    is_whole.then_some(order)
}
