//! An app's scheduled commands, with what became of their last runs.

use maud::{Markup, html};

use super::parts::{mark, prose, when};
use crate::api::cron::{CronRunView, CronView};

pub fn table(all: &[CronView]) -> Markup {
    html! {
        table tabindex="0" {
            thead { tr { th { "Command" } th { "Schedule" } th { "Last run" } th { "Next" } } }
            tbody {
                @for it in all {
                    tr {
                        td { (it.name) " " code.quiet { (it.command) } }
                        td { code { (it.schedule) } " " span.quiet { (it.timezone) } }
                        td data-label="Last run" { @match &it.last {
                            Some(last) => (run(last)),
                            None => span.quiet { "none yet" },
                        } }
                        td data-label="Next" { @if let Some(next) = &it.next_at { (when(next)) } }
                    }
                }
            }
        }
    }
}

fn run(run: &CronRunView) -> Markup {
    let class = match run.state {
        "succeeded" => "good",
        "running" => "busy",
        "skipped" => "off",
        _ => "bad",
    };
    html! {
        span class={ "state " (class) } { (mark(class)) (run.state) }
        " " (when(&run.started_at))
        @match (&run.outcome, run.exit_code) {
            (Some(why), _) => { " " span.quiet { (prose(why)) } },
            (None, Some(code)) if code != 0 => { " " span.quiet { "code " (code) } },
            _ => {},
        }
        @if class == "bad" && !run.log_tail.is_empty() {
            details { summary { "Its last lines" } pre { (run.log_tail.join("\n")) } }
        }
    }
}
