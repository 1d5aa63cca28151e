//! Provides what [`super::router`] needs from a running agent.

use std::sync::Arc;

use super::{Found, Git, Repository};
use crate::api::{Api, path};
use crate::config::Repo;
use crate::deploy::{follow, intake};
use crate::store::StoreError;

/// Accepts pushes for the apps whose `repo` is a path on this machine, with a token of the API.
pub fn of_agent(api: Arc<Api>) -> Git {
    let (apps, tokens, follows) = (api.clone(), api.clone(), api.clone());
    let (begins, ends, names) = (api.clone(), api.clone(), api.clone());
    Git {
        repository: Box::new(move |name| find(&apps, name)),
        nearest: Box::new(move |caller, name| path::nearest(&names, caller, name)),
        principal: Box::new(move |token| {
            let api = tokens.clone();
            Box::pin(async move { api.tokens.principal(&token).await })
        }),
        begin: Box::new(move |push| {
            let agent = begins.agent.clone();
            Box::pin(async move { stored(intake::pending::begin(&agent, push).await) })
        }),
        end: Box::new(move |push| {
            let agent = ends.agent.clone();
            Box::pin(async move { stored(intake::pending::end(&agent, push).await) })
        }),
        moved: Box::new(move |push| {
            let agent = api.agent.clone();
            Box::pin(async move { stored(intake::pending::moved(&agent, push).await) })
        }),
        follow: Box::new(move |id, until| {
            follow::follow_in_words(follows.agent.clone(), id, until)
        }),
    }
}

fn find(api: &Api, name: &str) -> Found {
    let app = name.parse().ok();
    let Some(app) = app.and_then(|name| api.agent.app(&name)) else {
        return match path::renamed(api, name) {
            Some(app) => Found::Renamed {
                now: app.name.clone(),
            },
            None => Found::NoSuchApp,
        };
    };
    match &app.repo {
        Repo::Image(image) => Found::Elsewhere {
            app: app.name.clone(),
            address: image.to_string(),
        },
        Repo::Local(path) => Found::Repository(Repository {
            app: app.name.clone(),
            path: path.clone(),
            branch: app.branch.clone(),
            ref_policy: {
                let app = app.clone();
                Arc::new(move |git_ref| intake::refusal(&app, git_ref).map(drop))
            },
        }),
        Repo::Http(address) | Repo::Ssh(address) => Found::Elsewhere {
            app: app.name.clone(),
            address: crate::source::without_password(address),
        },
    }
}

fn stored<T>(outcome: Result<T, StoreError>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}
