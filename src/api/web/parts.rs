//! What several pages show in the same way.

use std::time::Duration;

use maud::{Markup, html};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::api::view::{DeploymentView, RequesterKind, RequesterView};
use crate::deploy::words::{ago, ahead, took};
use crate::printable::cut;
use crate::state::State;
use crate::store::deployments::Trigger;
use crate::store::overview::Brief;

/// Text in which backticks mark code.
pub fn prose(text: &str) -> Markup {
    let parts = text.split('`').enumerate();
    html! {
        @for (number, part) in parts {
            @if number % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// A time of RFC 3339 as how long ago it was, or how far ahead it is.
pub fn when(time: &str) -> Markup {
    let since = moment(time).map(|then| OffsetDateTime::now_utc() - then);
    let shown = since.map(|since| match since.is_negative() {
        true => ahead(since.unsigned_abs()),
        false => ago(since.unsigned_abs()),
    });
    html! { time datetime=(time) title=(time) { (shown.unwrap_or(time.to_owned())) } }
}

pub fn moment(time: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(time, &Rfc3339).ok()
}

/// The time between two of RFC 3339, until now where the second is missing.
pub fn between(from: &str, to: Option<&str>) -> Option<Duration> {
    let to = to.map_or_else(|| Some(OffsetDateTime::now_utc()), moment)?;
    (to - moment(from)?).try_into().ok()
}

pub fn duration(time: Duration) -> Markup {
    html! { span.number { (took(time)) } }
}

pub fn commit(id: &str) -> Markup {
    html! { code title=(id) { (short(id)) } }
}

/// As much of a commit's id as names it to people.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// The author of a commit; an image has none.
pub fn by(author: &str) -> Markup {
    html! { @if !author.is_empty() { " by " (author) } }
}

/// The first line of a commit's message.
pub fn message(text: Option<&str>) -> Markup {
    match text.filter(|text| !text.is_empty()) {
        Some(text) => html! { span.subject title=(text) { (long(text)) } },
        None => html! { span.quiet { "no message" } },
    }
}

/// An image's name whose digest is cut to what tells it from others.
pub fn brief(image: &str) -> String {
    const DIGEST: &str = "@sha256:";
    let cut = image.find(DIGEST).map(|at| at + DIGEST.len() + 12);
    match cut.and_then(|cut| image.split_at_checked(cut)) {
        Some((start, rest)) if !rest.is_empty() => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_hexdigit());
            format!("{start}…{rest}")
        }
        _ => image.to_owned(),
    }
}

fn long(text: &str) -> String {
    cut(&brief(text.lines().next().unwrap_or_default()), 120)
}

/// A state's word, and the class that colours it.
pub fn state_words(state: State) -> (&'static str, &'static str) {
    match state {
        State::Live => ("live", "good"),
        State::Failed => ("failed", "bad"),
        State::Stuck => ("stuck", "bad"),
        State::RolledBack => ("rolled back", "warn"),
        State::Superseded => ("superseded", "off"),
        State::Skipped => ("skipped", "off"),
        State::Cancelled => ("cancelled", "off"),
        State::Queued => ("waiting", "busy"),
        other => (other.as_str(), "busy"),
    }
}

/// A state as a mark whose shape tells it too, and its word.
pub fn state(state: State) -> Markup {
    let (word, class) = state_words(state);
    html! { span class={ "state " (class) } { (mark(class)) (word) } }
}

/// The mark of a class of states. It says nothing that no word says.
pub fn mark(class: &str) -> Markup {
    let shape = match class {
        "good" | "bad" | "warn" | "busy" => class,
        _ => "off",
    };
    html! { svg.mark aria-hidden="true" { use href={ "#mark-" (shape) } {} } }
}

/// The shapes of the marks, once for a page: a page may show thousands.
pub fn marks() -> Markup {
    html! {
        svg.marks aria-hidden="true" {
            (shape("good", html! { circle cx="5" cy="5" r="4" fill="currentColor" {} }))
            (shape("bad", html! {
                path d="M1.5 1.5 8.5 8.5M8.5 1.5 1.5 8.5" stroke="currentColor" stroke-width="2" {}
            }))
            (shape("warn", html! { path d="M5 1 9.5 9H.5Z" fill="currentColor" {} }))
            (shape("busy", html! {
                path d="M5 1a4 4 0 1 1-4 4" fill="none" stroke="currentColor" stroke-width="2" {}
            }))
            (shape("off", html! {
                circle cx="5" cy="5" r="3.2" fill="none" stroke="currentColor" stroke-width="1.5" {}
            }))
        }
    }
}

fn shape(class: &str, drawn: Markup) -> Markup {
    html! { symbol id={ "mark-" (class) } viewBox="0 0 10 10" { (drawn) } }
}

/// The last deployments, the newest at the right.
pub fn strip(deployments: &[Brief]) -> Markup {
    html! {
        @if !deployments.is_empty() {
            ol.strip aria-label="The last deployments, the newest last" {
                @for it in deployments.iter().rev() {
                    @let (word, class) = state_words(it.state);
                    @let what = it.message.as_deref().map(long).unwrap_or_default();
                    li {
                        a class=(class) href={ "/deployments/" (it.id) } title={ (word) ": " (what) } {
                            (mark(class))
                        }
                    }
                }
            }
        }
    }
}

/// Who asked for it, and how.
pub fn asked(deployment: &DeploymentView) -> Markup {
    let how = match deployment.trigger {
        Trigger::Webhook | Trigger::Push | Trigger::Poll => "pushed",
        Trigger::Api | Trigger::Cli => "requested",
        Trigger::Rollback => "rolled back",
        Trigger::AutoRollback => "rolled back",
    };
    html! {
        (how)
        @if let Some(who) = &deployment.requested_by { " by " (requester(who)) }
    }
}

pub fn requester(who: &RequesterView) -> Markup {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let uid = who.uid.unwrap_or_default();
    html! {
        @match (&who.kind, &who.user) {
            (RequesterKind::Agent, _) => "Cutover",
            (RequesterKind::Stranger, _) => "somebody without a valid token",
            (RequesterKind::Local, _) => { "local user (uid " (uid) ")" },
            (RequesterKind::GitHook, _) => { "git push on this machine (uid " (uid) ")" },
            (RequesterKind::Token, _) => { "token " code { (name(&who.token)) } },
            (RequesterKind::Webhook, Some(user)) => { (user) " at " (name(&who.forge)) },
            (RequesterKind::Webhook, None) => (name(&who.forge)),
            (RequesterKind::GitHttp, Some(user)) => { (user) " with token " code { (name(&who.token)) } },
            (RequesterKind::GitHttp, None) => { "git with token " code { (name(&who.token)) } },
        }
    }
}

/// A text to copy into a terminal.
pub fn command(text: &str) -> Markup {
    html! { pre.command tabindex="0" { code { (text) } } }
}

/// A list of problems, if there are any.
pub fn problems(all: &[String]) -> Markup {
    html! {
        @if !all.is_empty() {
            ul.notice.bad aria-label="Problems" {
                @for one in all { li { (prose(one)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_write_is_text() {
        let evil = "<script>alert(1)</script>\"'`<b>`";
        for shown in [
            prose(evil),
            message(Some(evil)),
            commit(evil),
            command(evil),
            when(evil),
        ] {
            let shown = shown.into_string();
            assert!(
                !shown.contains("<script>") && !shown.contains("<b>"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_digest_is_cut_and_whole_in_the_title() {
        let image = format!("ghcr.io/acme/hello:1@sha256:{}", "ab".repeat(32));
        let cut = "ghcr.io/acme/hello:1@sha256:abababababab…";
        assert_eq!(brief(&image), cut);
        assert_eq!(brief("hello:1"), "hello:1");
        assert_eq!(brief("x@sha256:ä"), "x@sha256:ä");
        let shown = message(Some(&image)).into_string();
        assert!(
            shown.contains(cut) && shown.contains(&format!("title=\"{image}\"")),
            "{shown}"
        );
    }

    #[test]
    fn every_state_has_a_word() {
        let words: std::collections::BTreeSet<_> = State::ALL
            .into_iter()
            .map(|state| state_words(state).0)
            .collect();
        assert_eq!(words.len(), State::ALL.len());
    }
}
