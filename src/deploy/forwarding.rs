//! The hosts of the apps, and how the proxy treats their requests, translated from deploy.toml for the
//! proxy. Read at start and at a reload, never at a switch: a change to a page's file must not change
//! a table that is published again.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::{App, AppProxy, BasicUser, Config, Notice};
use crate::ids::AppName;
use crate::proxy::front::{BasicAuth, Front, User};
use crate::proxy::table::{Page, Policy};

/// The largest page file, in bytes.
const LONGEST: u64 = 64 << 10;

/// The largest total of a table's pages, in bytes: a larger table would exceed the limit of the
/// proxy's socket.
const ALL: usize = 4 << 20;

/// Everything in the apps' routes other than their targets.
pub struct Forwarding {
    apps: BTreeMap<AppName, AppRoute>,
    pub pages: BTreeMap<u16, Page>,
}

/// One app's part. Stored in the database too, for an app that is no longer in deploy.toml.
#[derive(Clone, Serialize, Deserialize)]
pub struct AppRoute {
    pub hosts: Vec<String>,
    pub path_prefix: String,
    /// Defaulted, because a row stored by another version may lack it.
    #[serde(default)]
    pub policy: Policy,
}

impl Forwarding {
    /// Reads the pages' files. Blocks.
    pub fn of(config: &Config) -> Self {
        let mut pages = Pages { left: ALL };
        let mut route = |app: &Arc<App>| AppRoute {
            hosts: hosts(app),
            path_prefix: app.proxy.path.clone(),
            policy: policy(app, config, &mut pages),
        };
        let mut routed = |app: &Arc<App>| {
            let takes_requests = app.port.is_some();
            takes_requests.then(|| (app.name.clone(), route(app)))
        };
        Self {
            apps: config.apps.values().filter_map(&mut routed).collect(),
            pages: pages.of(&config.proxy.error_pages),
        }
    }

    pub fn app(&self, name: &AppName) -> Option<&AppRoute> {
        self.apps.get(name)
    }

    pub fn apps(&self) -> impl Iterator<Item = (&AppName, &AppRoute)> {
        self.apps.iter()
    }
}

/// Without any, it is every host that no app names; the empty one stands for them beside its own.
fn hosts(app: &App) -> Vec<String> {
    let asks = app.domains_ask.is_some() && !app.domains.is_empty();
    let others = asks.then(String::new);
    app.domains.iter().cloned().chain(others).collect()
}

/// Reads the files of a table's pages. A file that cannot be used is logged and replaced by the
/// proxy's own text: a missing file must not hold up a switch.
struct Pages {
    /// The remaining space, in bytes.
    left: usize,
}

fn policy(app: &App, config: &Config, pages: &mut Pages) -> Policy {
    let (name, app) = (&app.name, &app.proxy);
    let ms = |duration: Duration| duration.as_millis() as u64;
    let maintenance = app.maintenance.as_ref().map(|notice| match notice {
        Notice::Text(text) => Page::from(format!("{text}\n").as_str()),
        Notice::File(path) => pages
            .page(path)
            .unwrap_or(Page::from("503 The app is under maintenance.\n")),
    });
    Policy {
        connect_timeout_ms: ms(app.connect_timeout),
        first_byte_timeout_ms: ms(app.first_byte_timeout),
        body_idle_timeout_ms: ms(app.idle_timeout),
        keep_alive_ms: ms(app.keep_alive),
        max_body: app.max_body,
        hold_ms: ms(app.hold),
        pause_ms: ms(app.pause),
        maintenance,
        strip_prefix: app.strip_path,
        https_redirect: app.https_redirect,
        front: front(name, app),
        pages: pages.of(&app.error_pages),
        // Set from the release.
        h2c: false,
        header_limit: config.proxy.header_limit,
    }
}

/// What requests have to pass first. Who has no password that can be read does not come in.
fn front(name: &AppName, app: &AppProxy) -> Option<Arc<Front>> {
    let Some(auth) = &app.basic_auth else {
        return app.front.clone();
    };
    let user = |user: &BasicUser| match user.hash(name) {
        Ok(hash) => Some(User {
            name: user.name.clone(),
            hash,
        }),
        Err(error) => {
            let user = &user.name;
            tracing::error!(
                app = %name,
                "`apps.{name}.proxy.basic_auth`: {error}; `{user}` cannot come in until the next `cutover reload`"
            );
            None
        }
    };
    let mut front = app.front.as_deref().cloned().unwrap_or_default();
    front.basic_auth = Some(BasicAuth {
        users: auth.users.iter().filter_map(user).collect(),
        except: auth.except.clone(),
    });
    Some(Arc::new(front))
}

impl Pages {
    /// By status.
    fn of(&mut self, files: &BTreeMap<u16, PathBuf>) -> BTreeMap<u16, Page> {
        let mut read = |(&status, path): (&u16, &PathBuf)| Some((status, self.page(path)?));
        files.iter().filter_map(&mut read).collect()
    }

    fn page(&mut self, path: &Path) -> Option<Page> {
        let room = |text: String| match self.left.checked_sub(text.len()) {
            Some(left) => {
                self.left = left;
                Ok(text)
            }
            None => Err(io::Error::other("all pages together are larger than 4 MiB")),
        };
        match read(path).and_then(room) {
            Ok(text) => Some(Page {
                content_type: content_type(path).into(),
                text,
            }),
            Err(error) => {
                tracing::warn!("failed to use the page `{}`: {error}", path.display());
                None
            }
        }
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST {
        true => Err(io::Error::other("it is longer than 64 KiB")),
        false => Ok(text),
    }
}

fn content_type(path: &Path) -> &'static str {
    match path.extension().and_then(|e| e.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        _ => "text/plain; charset=utf-8",
    }
}
