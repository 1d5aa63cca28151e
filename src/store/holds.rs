//! What a person has put on an app for a while, through restarts of the agent and of the machine.

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::deployments::{Deployment, Failure, Trigger};
use super::{Result, json, to_json};
use crate::ids::AppName;
use crate::principal::Requester;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// What is pushed is recorded and not deployed.
    Pin,
    /// Visitors get 503.
    Maintenance,
}

/// That it is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub at: i64,
    pub by: Requester,
    /// Why; under maintenance, what visitors read.
    pub text: Option<String>,
}

impl Hold {
    fn column(self) -> &'static str {
        match self {
            Self::Pin => "pinned",
            Self::Maintenance => "maintenance",
        }
    }
}

pub fn of(db: &Connection, app: &AppName, hold: Hold) -> Result<Option<Held>> {
    let column = hold.column();
    let mut query = db.prepare_cached(&format!("SELECT {column} FROM apps WHERE name = ?1"))?;
    let found = query.query_row([app.as_str()], |row| json(row, column));
    Ok(found.optional()?.flatten())
}

pub fn set(db: &Connection, app: &AppName, hold: Hold, held: Option<&Held>) -> Result<()> {
    let column = hold.column();
    let sql = format!(
        "INSERT INTO apps (name, {column}) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET {column} = ?2"
    );
    let held = held.map(to_json).transpose()?;
    db.prepare_cached(&sql)?.execute((app.as_str(), held))?;
    Ok(())
}

/// Why a push to a pinned app is not deployed.
pub fn why_pinned(db: &Connection, app: &AppName) -> Result<Option<String>> {
    let held = of(db, app, Hold::Pin)?;
    Ok(held.map(|held| {
        let text = held.text.map(|text| format!(" ({text})"));
        let (by, text) = (held.by, text.unwrap_or_default());
        format!("`{app}` was pinned by {by}{text}; `cutover unpin {app}` lets pushes go live again")
    }))
}

/// The code of a deployment that ended because its app was pinned.
pub const PINNED: &str = "pinned";

/// Why a deployment that has not switched must not go on: its app is pinned, and no person asked for it.
pub fn stops(db: &Connection, deployment: &Deployment) -> Result<Option<Failure>> {
    let pushed = matches!(
        deployment.trigger,
        Trigger::Webhook | Trigger::Push | Trigger::Poll
    );
    let why = match pushed {
        true => why_pinned(db, &deployment.app)?,
        false => None,
    };
    Ok(why.map(|why| Failure::new(PINNED, why)))
}
