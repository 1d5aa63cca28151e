//! Requests over the last hour or day, drawn by the server.

use std::fmt::Write;
use std::time::Duration;

use maud::{Markup, html};

use super::parts::when;
use crate::api::view::rfc3339;
use crate::deploy::traffic::{HOUR, Minute, Point, Span};
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
    match 100.0 * part as f64 / of.max(1) as f64 {
        percent if part > 0 && percent < 0.05 => "under 0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

/// What is drawn: which time, and until when.
#[derive(Clone, Copy)]
struct Axis {
    span: Span,
    now: i64,
}

impl Axis {
    fn x(self, at: i64) -> f64 {
        let part = (self.now - at) as f64 / self.span.kept as f64;
        (WIDTH * (1.0 - part)).clamp(0.0, WIDTH)
    }

    fn a_second(self, count: u64) -> f64 {
        count as f64 / (self.span.step as f64 / 1000.0)
    }
}

/// A line through the values; steps without a point are 0.
fn path(points: &[Point], axis: Axis, most: f64, value: impl Fn(&Point) -> f64) -> String {
    let (step, now) = (axis.span.step, axis.now);
    let mut path = String::new();
    let mut last: Option<i64> = None;
    let y = |value: f64| HEIGHT - value / most.max(f64::MIN_POSITIVE) * (HEIGHT - 4.0);
    for point in points {
        let here = axis.x(point.at);
        match last {
            Some(last) if point.at - last < 2 * step => {}
            last => {
                if let Some(last) = last {
                    let _ = write!(path, "L{:.1} {HEIGHT}", axis.x(last + step));
                }
                let before = axis.x(point.at - step);
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
            axis.x(last + step)
        );
    }
    path
}

fn most(points: &[Point], value: impl Fn(&Point) -> f64) -> f64 {
    points.iter().map(value).fold(0.0, f64::max)
}

/// The last hour as a small line.
pub fn spark(points: &[Point], now: i64) -> Markup {
    let axis = Axis { span: HOUR, now };
    let a_second = |it: &Point| axis.a_second(it.requests);
    let most = most(points, a_second);
    html! {
        @if !points.is_empty() {
            svg.spark role="img" viewBox="0 0 720 100" preserveAspectRatio="none"
                aria-label={ "Requests in the last hour, up to " (rate(most)) " per second" } {
                path.line d=(path(points, axis, most, a_second)) {}
                @if points.iter().any(|it| it.failed > 0) {
                    path.line.bad d=(path(points, axis, most, |it| axis.a_second(it.failed))) {}
                }
            }
        }
    }
}

/// Requests and failures, and how long they took, with marks. `began`: since when they are counted.
pub fn whole(points: &[Point], marks: &[Mark], span: Span, began: Option<i64>, now: i64) -> Markup {
    let axis = Axis { span, now };
    let a_second = |it: &Point| axis.a_second(it.requests);
    let what = if span == HOUR { "hour" } else { "day" };
    let busiest = most(points, a_second);
    let slowest = points.iter().map(|it| it.p99).max().unwrap_or_default();
    let seconds = |time: Duration| time.as_secs_f64();
    let total: u64 = points.iter().map(|it| it.requests).sum();
    let bad: u64 = points.iter().map(|it| it.failed).sum();
    html! {
        @if let (true, Some(began)) = (points.is_empty(), began.filter(|at| now - at < span.kept)) {
            p.quiet { "No requests since the agent was started, " (when(&rfc3339(began))) "." }
        }
        @else if points.is_empty() { p.quiet { "No requests in the last " (what) "." } }
        @else {
            div.charts {
                figure {
                    figcaption {
                        "Requests per second, up to " span.number { (rate(busiest)) } "; "
                        @if bad > 0 { span.state.bad { (percent(bad, total)) " of " (total) " failed" } }
                        @else { "none of " (total) " failed" }
                    }
                    @let requests = ("line", path(points, axis, busiest, a_second));
                    @let failed = |it: &Point| axis.a_second(it.failed);
                    @let failed = (bad > 0).then(|| ("line bad", path(points, axis, busiest, failed)));
                    (drawing(&[requests].into_iter().chain(failed).collect::<Vec<_>>(), marks, axis))
                }
                figure {
                    figcaption { "Response time: p99, up to " span.number { (took(slowest)) } ", with p50 below it" }
                    (drawing(&[
                        ("line", path(points, axis, seconds(slowest), |it| seconds(it.p99))),
                        ("line low", path(points, axis, seconds(slowest), |it| seconds(it.p50))),
                    ], marks, axis))
                }
            }
            p.axis.quiet aria-hidden="true" { span { (if span == HOUR { "an hour ago" } else { "a day ago" }) } span { "now" } }
        }
    }
}

fn drawing(lines: &[(&str, String)], marks: &[Mark], axis: Axis) -> Markup {
    html! {
        svg.chart aria-hidden="true" viewBox="0 0 720 100" preserveAspectRatio="none" {
            line.base x1="0" y1="100" x2="720" y2="100" {}
            @for mark in marks.iter().filter(|mark| mark.at > axis.now - axis.span.kept) {
                @let at = format!("{:.1}", axis.x(mark.at));
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
        let axis = Axis {
            span: HOUR,
            now: 3_600_000,
        };
        let drawn = path(&points, axis, 2.0, |it| axis.a_second(it.requests));
        assert_eq!(
            drawn,
            "M598.0 100L600.0 52.0L602.0 4.0L604.0 100L658.0 100L660.0 4.0L662.0 100L720 100"
        );
        assert!(spark(&[], 0).into_string().is_empty());
    }
}
