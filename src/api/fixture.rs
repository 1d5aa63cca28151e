//! An agent for tests, without workers, Docker or a proxy.

use std::path::Path;
use std::sync::Arc;

use super::{
    Api, Bodies, Health, Links, Refusals, Sessions, WebhookSecrets,
    auth::{Token, Tokens},
};
use crate::deploy::Agent;
use crate::engine::Engine;
use crate::principal::{Role, Scope};
use crate::proxy::control::Client;
use crate::store::Store;

/// The API of an agent with the tokens `right` and `reader`; the latter may only read.
pub async fn api(folder: &Path) -> Arc<Api> {
    api_with(folder, "").await
}

/// The same with more settings.
pub async fn api_with(folder: &Path, more: &str) -> Arc<Api> {
    let path = folder.join("deploy.toml");
    let app = "agent.data_dir = 'data'\n[apps.hello]\nrepo = 'hello.git'\nport = 80\n\
               cron.cleanup = { schedule = '0 3 * * *', command = 'cleanup' }\n\
               [apps.far]\nrepo = 'far.git'\nport = 80\ndomains = ['far.example']\n\
               webhook.networks = ['203.0.113.0/24']";
    std::fs::write(
        &path,
        match more.starts_with("agent") {
            true => format!("{more}\n{app}"),
            false => format!("{app}\n{more}"),
        },
    )
    .unwrap();
    let config = crate::config::Loaded::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
    std::fs::create_dir_all(&config.config.agent.data_dir).unwrap();
    let store = Store::open(folder).unwrap();
    let id = store.write(crate::store::apps::agent_id).await.unwrap();
    let engine = Engine::docker("unix:///nowhere".parse().unwrap(), id.clone(), folder);
    let proxy = Client::new(folder.join("nowhere"));
    Arc::new(Api {
        tokens: Tokens::new(
            vec![
                Token::new("admin", "right", Scope::All, Role::Admin),
                Token::new("reader", "reader", Scope::All, Role::Read),
            ],
            store.clone(),
        ),
        agent: Arc::new(Agent::new(config, id, store, engine, proxy)),
        health: Health::default(),
        bodies: Bodies::default(),
        refusals: Refusals::default(),
        webhook_secrets: WebhookSecrets::default(),
        links: Links::default(),
        sessions: Sessions::default(),
    })
}
