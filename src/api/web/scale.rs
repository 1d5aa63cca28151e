//! How many instances an app has, as a form.

use std::collections::BTreeMap;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect};
use maud::html;

use super::actions;
use super::confirm::{back_link, page};
use super::fields::Fields;
use super::layout::csrf;
use super::refusal::{For, Result};
use super::viewer::Viewer;
use crate::api::path::{AppPath, acting};
use crate::api::scale::wanted;
use crate::api::{ApiError, Shared};
use crate::deploy::scale;
use crate::ids::ServiceName;
use crate::principal::Role;
use crate::store::deployments::Trigger;

pub async fn ask(State(api): Shared, viewer: Viewer, Path(path): Path<AppPath>) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let all = scale::of(&api.agent, &app).await.told(&viewer)?;
    let body = html! {
        p { "Instances of each process. Those that change are replaced as by a deployment, and no request is lost; the \
             numbers are kept through deployments. Left empty, what deploy.toml says counts." }
        form.fields method="post" action={ "/apps/" (app.name) "/scale" } {
            (csrf(&viewer))
            @for it in &all {
                @let id = field(&it.service);
                label for=(id) { (it.service) }
                input id=(id) name=(id) type="number" max="100"
                    min=(u32::from(it.service == ServiceName::web()))
                    value=[it.asked] placeholder=(it.configured);
            }
            div.actions {
                button.main { "Scale" }
                (back_link(&app.name))
            }
        }
    };
    page(&format!("Scale {}", app.name), &viewer, &app.name, body)
}

fn field(service: &ServiceName) -> String {
    format!("process-{service}")
}

pub async fn change(
    State(api): Shared,
    viewer: Viewer,
    Path(path): Path<AppPath>,
    fields: Fields,
) -> Result {
    let app = acting(&api, &viewer.principal, Role::Deploy, &path.app).await;
    let app = app.told(&viewer)?;
    let mut asked = BTreeMap::new();
    for it in scale::of(&api.agent, &app).await.told(&viewer)? {
        let given = fields.get(&field(&it.service)).map(str::parse);
        let wrong = |_| {
            ApiError::bad_request(format!(
                "the number of instances of `{}` must be a whole number",
                it.service
            ))
        };
        let given: Option<u32> = given.transpose().map_err(wrong).told(&viewer)?;
        if given != it.asked {
            asked.insert(it.service.to_string(), given);
        }
    }
    let back = || Redirect::to(&format!("/apps/{}", app.name)).into_response();
    if asked.is_empty() {
        return Ok(back());
    }
    let wanted = wanted(None, asked).told(&viewer)?;
    let by = viewer.principal.who.clone();
    let queued = scale::scale(&api.agent, &app, wanted, Trigger::Api, by).await;
    Ok(match queued.told(&viewer)? {
        Some(queued) => actions::to(&queued),
        None => back(),
    })
}
