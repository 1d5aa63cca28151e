//! Requests over the last hour, drawn by the server.

use std::fmt::Write;
use std::time::Duration;

use maud::{Markup, html};

use crate::deploy::traffic::{KEPT, Minute, Point, STEP};
use crate::deploy::words::took;

/// In the drawing's own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 100.0;

/// A moment worth a mark: when, in milliseconds since 1970, and what.
pub struct Mark {
    pub at: i64,
    pub what: String,
}

/// The last minute in words.
pub fn minute(minute: Option<Minute>) -> Markup {
    let Some(Minute {
        requests,
        failed,
        p99,
    }) = minute
    else {
        return html! {};
    };
    html! {
        span.number { (rate(requests as f64 / 60.0)) "/s" }
        @if failed > 0 {
            " " span.state.bad { (percent(failed, requests)) " failed" }
        }
        @if requests > 0 { " " span.quiet { "p99 " (took(p99)) } }
    }
}

fn rate(a_second: f64) -> String {
    match a_second {
        rate if rate >= 9.95 => format!("{rate:.0}"),
        rate => format!("{rate:.1}"),
    }
}

fn percent(part: u64, of: u64) -> String {
    format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64)
}

fn x(at: i64, now: i64) -> f64 {
    (WIDTH * (1.0 - (now - at) as f64 / KEPT as f64)).clamp(0.0, WIDTH)
}

/// A line through the values; steps without a point are 0.
fn path(points: &[Point], now: i64, most: f64, value: impl Fn(&Point) -> f64) -> String {
    let step = STEP.as_millis() as i64;
    let mut path = String::new();
    let mut last: Option<i64> = None;
    let y = |value: f64| HEIGHT - value / most.max(f64::MIN_POSITIVE) * (HEIGHT - 4.0);
    for point in points {
        let here = x(point.at, now);
        match last {
            Some(last) if point.at - last < 2 * step => {}
            last => {
                if let Some(last) = last {
                    let _ = write!(path, "L{:.1} {HEIGHT}", x(last + step, now));
                }
                let before = x(point.at - step, now);
                let letter = if last.is_some() { 'L' } else { 'M' };
                let _ = write!(path, "{letter}{before:.1} {HEIGHT}");
            }
        }
        let _ = write!(path, "L{here:.1} {:.1}", y(value(point)));
        last = Some(point.at);
    }
    if let Some(last) = last.filter(|last| now - last > step) {
        let _ = write!(
            path,
            "L{:.1} {HEIGHT}L{WIDTH} {HEIGHT}",
            x(last + step, now)
        );
    }
    path
}

fn most(points: &[Point], value: impl Fn(&Point) -> f64) -> f64 {
    points.iter().map(value).fold(0.0, f64::max)
}

fn a_second(point: &Point) -> f64 {
    point.requests as f64 / STEP.as_secs_f64()
}

fn failed(point: &Point) -> f64 {
    point.failed as f64 / STEP.as_secs_f64()
}

/// The last hour as a small line.
pub fn spark(points: &[Point], now: i64) -> Markup {
    let most = most(points, a_second);
    html! {
        @if !points.is_empty() {
            svg.spark role="img" viewBox="0 0 720 100" preserveAspectRatio="none"
                aria-label={ "Requests in the last hour, at most " (rate(most)) " a second" } {
                path.line d=(path(points, now, most, a_second)) {}
                path.line.bad d=(path(points, now, most, failed)) {}
            }
        }
    }
}

/// The last hour: requests and failures, and how long they took, with marks.
pub fn hour(points: &[Point], marks: &[Mark], now: i64) -> Markup {
    let busiest = most(points, a_second);
    let slowest = points.iter().map(|it| it.p99).max().unwrap_or_default();
    let seconds = |time: Duration| time.as_secs_f64();
    let total: u64 = points.iter().map(|it| it.requests).sum();
    let bad: u64 = points.iter().map(|it| it.failed).sum();
    html! {
        @if points.is_empty() { p.quiet { "No requests in the last hour." } }
        @else {
            div.charts {
                figure {
                    figcaption {
                        "Requests a second, at most " span.number { (rate(busiest)) } "; "
                        @if bad > 0 { span.state.bad { (percent(bad, total)) " of " (total) " failed" } }
                        @else { "none of " (total) " failed" }
                    }
                    (drawing(&[
                        ("line", path(points, now, busiest, a_second)),
                        ("line bad", path(points, now, busiest, failed)),
                    ], marks, now))
                }
                figure {
                    figcaption { "Time to answer: p99 at most " span.number { (took(slowest)) } ", and p50 below it" }
                    (drawing(&[
                        ("line", path(points, now, seconds(slowest), |it| seconds(it.p99))),
                        ("line low", path(points, now, seconds(slowest), |it| seconds(it.p50))),
                    ], marks, now))
                }
            }
            p.axis.quiet aria-hidden="true" { span { "an hour ago" } span { "now" } }
        }
    }
}

fn drawing(lines: &[(&str, String)], marks: &[Mark], now: i64) -> Markup {
    html! {
        svg.chart aria-hidden="true" viewBox="0 0 720 100" preserveAspectRatio="none" {
            line.base x1="0" y1="100" x2="720" y2="100" {}
            @for mark in marks.iter().filter(|mark| mark.at > now - KEPT) {
                @let at = format!("{:.1}", x(mark.at, now));
                line.moment x1=(at) y1="0" x2=(at) y2="100" { title { (mark.what) } }
            }
            @for (class, path) in lines { path class=(class) d=(path) {} }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_falls_to_nothing_where_there_are_no_points() {
        let point = |at: i64, requests| Point {
            at,
            requests,
            failed: 0,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
        };
        let points = [
            point(3_000_000, 10),
            point(3_010_000, 20),
            point(3_300_000, 20),
        ];
        let drawn = path(&points, 3_600_000, 2.0, a_second);
        assert_eq!(
            drawn,
            "M598.0 100L600.0 52.0L602.0 4.0L604.0 100L658.0 100L660.0 4.0L662.0 100L720 100"
        );
        assert!(spark(&[], 0).into_string().is_empty());
    }
}
