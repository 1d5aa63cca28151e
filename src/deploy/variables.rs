//! Variables that Cutover keeps for an app. A change is stored in one transaction with the deployment that
//! brings it to the app: a new release of the live one's image, without a build.

use std::collections::BTreeMap;

use super::{Agent, Result, intake};
use crate::config::env_file;
use crate::ids::AppName;
use crate::principal::Requester;
use crate::printable::cut;
use crate::store::deployments::{Deployment, Trigger};
use crate::store::{StoreError, actions, variables};

/// The most variables of one app, and the longest value in bytes: Linux takes none above 128 KiB.
const MOST: usize = 500;
const LONGEST: usize = 60 << 10;
/// How many characters of a value are kept in the audit log, for 400 days.
const SHORT: usize = 200;

/// What to change.
pub struct Change {
    pub set: BTreeMap<String, String>,
    pub unset: Vec<String>,
    /// Whether to deploy the live release again, if there is one.
    pub deploy: bool,
}

/// Stores all of the change, or nothing; returns how many variables have another value than before, and
/// what was queued.
pub async fn change(
    agent: &Agent,
    app: &AppName,
    change: Change,
    trigger: Trigger,
    by: Requester,
) -> Result<(usize, Option<Deployment>)> {
    let of = app.clone();
    let write = agent.store.write(move |db| {
        let refused = |why: String| Err(StoreError::Refused(format!("{why}: nothing was changed")));
        let names: Vec<_> = change.set.keys().collect();
        let before = variables::values(db, &of)?;
        let values = change.set.keys().chain(&change.unset).map(|name| {
            let short = |value: Option<&String>| value.map(|value| cut(value, SHORT));
            let (before, after) = (short(before.get(name)), short(change.set.get(name)));
            let values = serde_json::json!({ "before": before, "after": after });
            (name.clone(), values)
        });
        let values: serde_json::Map<_, _> = values.collect();
        let detail = serde_json::json!({ "set": names, "unset": change.unset, "values": values });
        actions::insert(db, actions::Kind::Variables, Some(&of), &detail, &by)?;
        let mut changed = 0;
        for name in &change.unset {
            if !variables::unset(db, &of, name)? {
                let name = name.escape_debug();
                return refused(format!("`{of}` has no variable `{name}` of its own"));
            }
            changed += 1;
        }
        for (name, value) in &change.set {
            if let Some(why) = wrong(name, value) {
                return refused(why);
            }
            changed += usize::from(variables::set(db, &of, name, value, &by)?);
        }
        if variables::of_app(db, &of)?.len() > MOST {
            return refused(format!("an app can have {MOST} variables"));
        }
        let queued = match changed > 0 && change.deploy {
            true => intake::again(db, &of, trigger, by)?,
            false => None,
        };
        Ok((changed, queued))
    });
    let (changed, queued) = write.await?;
    tracing::info!(%app, changed, "variables were changed");
    if let Some(queued) = &queued {
        intake::announce(agent, queued);
    }
    Ok((changed, queued))
}

fn wrong(name: &str, value: &str) -> Option<String> {
    let shown = name.escape_debug();
    if !env_file::is_name(name) {
        return Some(format!(
            "`{shown}` is not a variable's name: expected letters, digits and `_`, no digit first"
        ));
    }
    if env_file::is_reserved(name) {
        return Some(format!("`{name}` cannot be set: Cutover sets it itself"));
    }
    if value.contains('\0') {
        return Some(format!("the value of `{shown}` contains a NUL character"));
    }
    (value.len() > LONGEST).then(|| format!("the value of `{shown}` is longer than 60 KiB"))
}
