//! Asks registries whether there is another image under an app's name for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::config::App;
use crate::deploy::{Agent, intake};
use crate::ids::AppName;

const LOOK: Duration = Duration::from_secs(1);

pub async fn poll(agent: Arc<Agent>) {
    // When each app was asked about last, and whether the answer is still awaited.
    let mut asked: HashMap<AppName, (Instant, bool)> = HashMap::new();
    let mut failing: HashMap<AppName, String> = HashMap::new();
    let mut asking = JoinSet::new();
    loop {
        let config = agent.in_force();
        let apps = &config.config.apps;
        asked.retain(|name, (_, waits)| *waits || apps.contains_key(name));
        for app in apps.values() {
            let Some(every) = app.poll else { continue };
            let last = asked.get(&app.name);
            if last.is_none_or(|(at, waits)| !waits && at.elapsed() >= every) {
                asked.insert(app.name.clone(), (Instant::now(), true));
                let (agent, app) = (agent.clone(), app.clone());
                asking.spawn(async move { ask(&agent, &app).await });
            }
        }
        tokio::select! {
            Some(Ok((name, asked_for))) = asking.join_next() => {
                if let Some((_, waits)) = asked.get_mut(&name) {
                    *waits = false;
                }
                say(&mut failing, name, asked_for);
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn ask(agent: &Agent, app: &App) -> (AppName, Result<(), String>) {
    let asked = match app.image() {
        Some(image) => intake::image::poll(agent, app, image).await,
        None => Ok(()),
    };
    (app.name.clone(), asked)
}

/// Logs what is wrong once, as long as it is the same.
fn say(failing: &mut HashMap<AppName, String>, app: AppName, asked: Result<(), String>) {
    match asked {
        Ok(()) => {
            if failing.remove(&app).is_some() {
                tracing::info!(%app, "its registry answers again");
            }
        }
        Err(error) => {
            if failing.get(&app) != Some(&error) {
                tracing::warn!(%app, "failed to ask for a newer image, and asks again: {error}");
                failing.insert(app, error);
            }
        }
    }
}
