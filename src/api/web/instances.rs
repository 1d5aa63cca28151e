//! An app's instances, and what they use.

use std::collections::HashMap;

use maud::{Markup, html};

use super::parts::{mark, prose};
use crate::api::Api;
use crate::api::instances::{self, InstanceView};
use crate::deploy::usage::Usage;
use crate::ids::AppName;
use crate::store::Result;

pub struct Instances {
    all: Vec<InstanceView>,
    usages: HashMap<String, Usage>,
}

impl Instances {
    pub async fn read(api: &Api, app: AppName) -> Result<Self> {
        let all = instances::of_app(api, app).await?;
        let names: Vec<_> = all.iter().map(|it| it.name.clone()).collect();
        let usages = api.agent.usages.of(&api.agent.engine, &names).await;
        Ok(Self { all, usages })
    }

    pub fn table(&self) -> Markup {
        html! {
            @if self.all.is_empty() { p.quiet { "None." } }
            @else {
                table tabindex="0" {
                    thead { tr {
                        th { "Process" } th { "State" } th.number { "CPUs" } th.number { "Memory" } th { "Container" }
                    } }
                    tbody {
                        @for it in &self.all {
                            tr {
                                td { (it.process) }
                                td { (state(it)) }
                                (usage(self.usages.get(&it.name)))
                                td { code { (it.name) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn state(it: &InstanceView) -> Markup {
    let class = match it.state.as_str() {
        "running" => "good",
        "starting" | "stopping" => "busy",
        "warm" => "off",
        _ => "bad",
    };
    html! {
        span class={ "state " (class) } { (mark(class)) (it.state) }
        @if let Some(detail) = &it.detail { " " span.quiet { (prose(detail)) } }
    }
}

fn usage(usage: Option<&Usage>) -> Markup {
    let cpus = usage.and_then(|it| it.cpus);
    html! {
        td.number data-label="CPUs" { @match cpus { Some(cpus) => (format!("{cpus:.2}")), None => span.quiet { "-" } } }
        td.number data-label="Memory" { @match usage { Some(usage) => (size(usage.memory)), None => span.quiet { "-" } } }
    }
}

/// Of memory and disks.
pub fn size(bytes: u64) -> String {
    match bytes {
        ..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}
