//! What an app's instances write, following live.

use std::collections::VecDeque;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use maud::{Markup, html};

use super::fields::Fields;
use super::layout::Page;
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::Shared;
use crate::api::path::{AppPath, known};
use crate::deploy::output::{self, Query, Said};
use crate::deploy::short_name;
use crate::engine::output::Stream;
use crate::principal::Role;

/// How much of the past the page shows, and how much on request.
const SOME: Part = Part {
    lines: 500,
    bytes: 128 << 10,
};
const MORE: Part = Part {
    lines: 5000,
    bytes: 1 << 20,
};

struct Part {
    lines: usize,
    bytes: usize,
}

pub async fn show(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let app = known(&api, &viewer.principal, Role::Read, &path.app).await;
    let app = app.told(&viewer)?;
    let (grep, instance) = (fields.get("grep"), fields.get("instance"));
    let more = fields.get("more").is_some();
    let part = if more { MORE } else { SOME };
    let query = Query {
        lines: part.lines,
        grep: grep.map(str::to_owned),
        instance: instance.map(str::to_owned),
        ..Query::default()
    };
    let mut lines = output::output(api.agent.clone(), app.clone(), query);
    let mut said = VecDeque::new();
    let mut bytes = 0;
    while let Some(line) = lines.recv().await {
        bytes += line.line.text.len();
        said.push_back(line);
        while bytes > part.bytes && said.len() > 1 {
            bytes -= said.pop_front().map_or(0, |line| line.line.text.len());
        }
    }
    let now = crate::api::view::rfc3339(crate::store::now());
    let from = said.back().map_or(now, |last| last.line.time.clone());
    let mut live = url::form_urlencoded::Serializer::new(String::from("/live?"));
    live.append_pair("app", app.as_str())
        .append_pair("from", &from);
    for (name, value) in [("grep", grep), ("instance", instance)] {
        if let Some(value) = value {
            live.append_pair(name, value);
        }
    }
    let page = Page {
        title: &format!("Log of {app}"),
        viewer: Some(&viewer),
        live: Some(live.finish()),
        body: body(app.as_str(), grep, instance, more, &said),
    };
    Ok(page.whole().into_response())
}

fn body(
    app: &str,
    grep: Option<&str>,
    instance: Option<&str>,
    more: bool,
    said: &VecDeque<Said>,
) -> Markup {
    html! {
        p.crumbs { a href={ "/apps/" (app) } { (app) } }
        h1 { "Log" }
        form.search method="get" role="search" {
            label for="grep" { "Lines with" }
            input #grep name="grep" type="search" value=[grep];
            label for="instance" { "Instance" }
            input #instance name="instance" type="search" size="10" placeholder="worker-0" value=[instance];
            button { "Search" }
            @if !more { button name="more" value="yes" { "Show more" } }
        }
        p.quiet #empty hidden[!said.is_empty()] { "No lines yet." }
        pre.log #output tabindex="0" aria-label={ "Output of " (app) } {
            @for one in said { (line(one)) }
        }
    }
}

fn line(said: &Said) -> Markup {
    let class = match said.line.stream {
        Stream::Stderr => "err",
        _ => "out",
    };
    let name = short_name(&said.instance).unwrap_or_default();
    html! {
        span class=(class) title=(said.instance) {
            span.quiet { (clock(&said.line.time)) " " (name) " " }
            (said.line.text) "\n"
        }
    }
}

/// The time of day of a time in RFC 3339.
fn clock(time: &str) -> &str {
    time.get(11..19).unwrap_or(time)
}
