//! `/badge/{app}.svg`: the state of an app as a picture for a README, where `badge = true`.

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::{ApiError, Shared};
use crate::store::{apps, deployments, releases};

/// Of one character, in pixels, in the font of the picture.
const WIDTH: usize = 7;

pub async fn show(State(api): Shared, Path(file): Path<String>) -> Result<Response, ApiError> {
    // Whether there is an app of this name is nobody's business, unless it says so itself.
    let hidden = || ApiError::no_such_app(file.trim_end_matches(".svg"));
    let name = file.strip_suffix(".svg").ok_or_else(hidden)?;
    let name = name.parse().map_err(|_| hidden())?;
    let app = api.agent.app(&name).filter(|app| app.badge);
    let app = app.ok_or_else(hidden)?;
    let name = app.name.clone();
    let read = api.agent.store.read(move |db| {
        let last = deployments::list(db, &name, None, 1)?.pop();
        let live = match apps::serving(db, &name)?.live {
            Some(live) => releases::get(db, &live)?,
            None => None,
        };
        Ok((last, live))
    });
    let (last, live) = read.await?;
    let (word, class) = match &last {
        None => ("nothing live", "off"),
        Some(last) => super::parts::state_words(last.state),
    };
    let commit = live.map(|live| live.commit.short().get(..7).unwrap_or_default().to_owned());
    let text = match commit {
        Some(commit) if word == "live" => format!("live {commit}"),
        _ => word.to_owned(),
    };
    let headers = [
        (header::CONTENT_TYPE, "image/svg+xml"),
        (header::CACHE_CONTROL, "max-age=60"),
    ];
    let picture = picture(app.name.as_str(), &text, color(class));
    Ok((headers, picture.into_string()).into_response())
}

fn color(class: &str) -> &'static str {
    match class {
        "good" => "#18794e",
        "bad" => "#c4262e",
        "warn" => "#8f5b00",
        "busy" => "#1d5fd1",
        _ => "#5f6772",
    }
}

fn picture(name: &str, text: &str, color: &str) -> Markup {
    let (left, right) = (name.len() * WIDTH + 12, text.len() * WIDTH + 12);
    let all = left + right;
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(all) height="20" role="img" aria-label={ (name) ": " (text) } {
            title { (name) ": " (text) }
            rect width=(all) height="20" rx="3" fill="#3a3f47" {}
            rect x=(left) width=(right) height="20" rx="3" fill=(color) {}
            rect x=(left) width="4" height="20" fill=(color) {}
            g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle" {
                text x=(left / 2) y="14" { (name) }
                text x=(left + right / 2) y="14" { (text) }
            }
        }
    }
}
