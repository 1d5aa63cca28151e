//! Names and their certificates.

use maud::{Markup, html};

use super::parts::{mark, prose};
use crate::api::view::rfc3339;
use crate::certificates::names::{Name, Source, renews_at};
use crate::store::now;

/// A certificate that nobody renews should be replaced in this time, in milliseconds.
const SOON: i64 = 14 * 24 * 3_600_000;

pub fn table(names: &[Name]) -> Markup {
    html! {
        table tabindex="0" {
            thead { tr { th { "Name" } th { "Issued by" } th { "Ends" } th { "Renewed" } } }
            tbody { @for name in names { (row(name)) } }
        }
    }
}

fn row(it: &Name) -> Markup {
    let class = match (&it.problem, &it.leaf) {
        (Some(_), _) => "bad",
        (None, None) => "busy",
        (None, Some(leaf)) if renews_at(it).is_none() && leaf.not_after - now() < SOON => "warn",
        (None, Some(_)) => "good",
    };
    html! {
        tr {
            td { (it.name) }
            td {
                span class={ "state " (class) } {
                    (mark(class))
                    @match &it.leaf { Some(leaf) => (leaf.issuer), None => "none" }
                }
                @if let Source::File(path) = &it.source { " " span.quiet { "in " code { (path.display()) } } }
                @if let Some(problem) = &it.problem { p { (prose(problem)) } }
                @if let Some(at) = it.state.next_try.filter(|_| it.problem.is_some()) {
                    p.quiet { "Tried again at " time datetime=(rfc3339(at)) { (day_and_time(at)) } }
                }
            }
            td data-label="Ends" { @if let Some(leaf) = &it.leaf { (day(leaf.not_after)) } }
            td data-label="Renewed" {
                @match renews_at(it) {
                    Some(at) => (day(at)),
                    None if it.leaf.is_some() => span.quiet { "by nobody" },
                    None => "",
                }
            }
        }
    }
}

fn day(at: i64) -> Markup {
    let text = rfc3339(at);
    html! { time datetime=(text) title=(text) { (text.get(..10).unwrap_or_default()) } }
}

fn day_and_time(at: i64) -> String {
    let text = rfc3339(at);
    text.get(..16).unwrap_or_default().replace('T', " ") + " UTC"
}
