//! What is secret of an app, so that it is hidden in what its programs print.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Agent, secrets, settings};
use crate::config::{self, App, looks_secret};
use crate::ids::AppName;
use crate::mask::Mask;
use crate::store::settings::{Place, Settings, Value};
use crate::store::variables;

/// The values of the app's secrets: those that Cutover keeps or kept, those that deploy.toml has elsewhere,
/// and variables whose names look like secrets. A value that cannot be read cannot be hidden; it cannot
/// have reached the app either.
pub async fn of_app(agent: &Agent, app: &AppName) -> Arc<Mask> {
    let mut values = secrets::all_values(agent, app).await;
    let of = app.clone();
    let variables = agent.store.read(move |db| variables::values(db, &of));
    let variables = variables.await.unwrap_or_default();
    let configured = agent.app(app);
    let read = tokio::task::spawn_blocking(move || {
        values.extend(named(&variables));
        if let Some(app) = configured {
            values.extend(elsewhere(&app));
        }
        Mask::of(values)
    });
    Arc::new(read.await.unwrap_or_default())
}

fn elsewhere(app: &App) -> Vec<String> {
    let Settings {
        env,
        env_file,
        secrets,
        ..
    } = settings::of(app);
    let places = secrets.into_values().flatten();
    let mut values: Vec<String> = places.filter_map(|place| read(&place)).collect();
    for (name, value) in env {
        match value {
            Value::From(place) => values.extend(read(&place)),
            Value::Text(text) if looks_secret(&name) => values.push(text),
            Value::Text(_) => {}
        }
    }
    let of_file = env_file.and_then(|path| config::env_file::read(&path).ok());
    let of_file: BTreeMap<_, _> = of_file.into_iter().flatten().collect();
    values.extend(named(&of_file));
    values.extend(of_test(app));
    values
}

/// Those of its test and of what that needs. What deploy.toml itself shows there is no secret of anything
/// that lasts.
fn of_test(app: &App) -> Vec<String> {
    let test = app.test.iter();
    let all = test.flat_map(|test| {
        let needs = test.needs.values().flat_map(|need| need.env.values());
        test.env.values().chain(needs)
    });
    let secret = all.filter_map(|value| match value {
        config::Value::From(secret) => super::environment::value(secret).ok(),
        config::Value::Text(_) => None,
    });
    secret.collect()
}

fn read(place: &Place) -> Option<String> {
    super::environment::read(place).ok()
}

fn named(variables: &BTreeMap<String, String>) -> impl Iterator<Item = String> + '_ {
    let secret = variables.iter().filter(|(name, _)| looks_secret(name));
    secret.map(|(_, value)| value.clone())
}
