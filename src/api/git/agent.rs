//! What [`super::router`] needs, of a running agent.

use std::sync::Arc;

use super::{Found, Git, Log, Pushed, Repository};
use crate::api::Api;
use crate::config::{App, Repo};
use crate::deploy::{enqueue, follow};
use crate::store::deployments::NewDeployment;
use crate::webhook::{Ref, filter};

/// Pushes are taken for the apps whose `repo` is a path on this machine, with the API's token.
pub fn of_agent(api: Arc<Api>) -> Git {
    let (apps, tokens) = (api.clone(), api.clone());
    Git {
        repository: Box::new(move |name| find(&apps, name)),
        allows: Box::new(move |token| tokens.token.is(token)),
        pushed: Box::new(move |push| Box::pin(pushed(api.clone(), push))),
    }
}

fn find(api: &Api, name: &str) -> Found {
    let app = name.parse().ok();
    let Some(app) = app.and_then(|name| api.agent.config.apps.get(&name)) else {
        return Found::NoSuchApp;
    };
    match &app.repo {
        Repo::Local(path) => Found::Repository(Repository {
            app: app.name.clone(),
            path: path.clone(),
            branch: app.branch.clone(),
            wants: {
                let app = app.clone();
                Arc::new(move |git_ref| wants(&app, git_ref))
            },
        }),
        Repo::Http(address) | Repo::Ssh(address) => {
            Found::Elsewhere(crate::source::without_password(address))
        }
    }
}

fn wants(app: &App, git_ref: &str) -> Result<(), String> {
    match Ref::parse(git_ref).map_err(|error| error.to_string())? {
        Some(git_ref) => filter::wants_ref(app, &git_ref),
        None => Err("it is neither a branch nor a tag".into()),
    }
}

/// Every app that is deployed from this ref of this repository is deployed; the pusher follows the
/// one whose address was pushed to.
async fn pushed(api: Arc<Api>, push: Pushed) -> Result<Log, String> {
    let apps = &api.agent.config.apps;
    let one = apps.get(&push.app).ok_or("the app is gone")?;
    let same = |app: &&App| app.repo == one.repo && wants(app, &push.git_ref).is_ok();
    let mut followed = None;
    for app in apps.values().filter(same) {
        let new = NewDeployment {
            no_cache: push.no_cache,
            ..enqueue::pushed(&app.name, &push.git_ref, push.commit.clone())
        };
        let queued = enqueue::deployment(&api.agent, new).await;
        let queued = queued.map_err(|error| error.to_string())?;
        if app.name == push.app {
            followed = Some(queued.id);
        }
    }
    let id = followed.ok_or("the app is gone")?;
    Ok(follow::follow(api.agent.clone(), id, true))
}
