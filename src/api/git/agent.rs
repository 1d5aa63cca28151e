//! What [`super::router`] needs, of a running agent.

use std::sync::Arc;

use super::{Found, Git, Log, PendingPush, Repository};
use crate::api::Api;
use crate::config::Repo;
use crate::deploy::{follow, intake};
use crate::store::StoreError;

/// Pushes are taken for the apps whose `repo` is a path on this machine, with the API's token.
pub fn of_agent(api: Arc<Api>) -> Git {
    let (apps, tokens) = (api.clone(), api.clone());
    let (begins, ends) = (api.clone(), api.clone());
    Git {
        repository: Box::new(move |name| find(&apps, name)),
        allows: Box::new(move |token| tokens.token.is(token)),
        begin: Box::new(move |pushes| {
            let agent = begins.agent.clone();
            Box::pin(async move { stored(intake::pending::begin(&agent, pushes).await) })
        }),
        end: Box::new(move |pushes| {
            let agent = ends.agent.clone();
            Box::pin(async move { stored(intake::pending::end(&agent, pushes).await) })
        }),
        pushed: Box::new(move |push| Box::pin(pushed(api.clone(), push))),
    }
}

fn find(api: &Api, name: &str) -> Found {
    let app = name.parse().ok();
    let Some(app) = app.and_then(|name| api.agent.app(&name)) else {
        return Found::NoSuchApp;
    };
    match &app.repo {
        Repo::Local(path) => Found::Repository(Repository {
            app: app.name.clone(),
            path: path.clone(),
            branch: app.branch.clone(),
            wants: {
                let app = app.clone();
                Arc::new(move |git_ref| intake::pending::wants(&app, git_ref))
            },
        }),
        Repo::Http(address) | Repo::Ssh(address) => {
            Found::Elsewhere(crate::source::without_password(address))
        }
    }
}

/// The pusher follows the app whose address was pushed to.
async fn pushed(api: Arc<Api>, push: PendingPush) -> Result<Log, String> {
    let queued = stored(intake::pending::queue(&api.agent, push).await)??;
    Ok(follow::follow(api.agent.clone(), queued.id, true))
}

fn stored<T>(outcome: Result<T, StoreError>) -> Result<T, String> {
    outcome.map_err(|error| error.to_string())
}
