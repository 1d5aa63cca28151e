//! Instances that should serve but do not: found by the reconciler, shown by `status`, `doctor`,
//! `/readyz` and the metrics. Kept in memory only, since a look at the engine finds all of it again.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock};

use crate::ids::AppName;
use crate::store::instances::Instance;
use crate::store::now;

/// How long a crash is shown, in milliseconds.
const SHOWN: i64 = 120_000;
/// How long an instance must have run since its last crash to count as repaired, in milliseconds.
const QUIET: i64 = 20_000;
/// The pause after the first attempt to bring an instance back; it doubles with each further attempt,
/// up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The warning about a volume that an image declares at `path`.
pub fn volume(path: &str) -> String {
    format!(
        "the image declares a volume at `{path}`: each deployment begins with an empty one. To keep what \
         the app writes there, mount a volume with a name (`volumes = [\"data:{path}\"]` below `run` in \
         deploy.toml)"
    )
}

/// Why an instance of a live release does not serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    Stopped,
    Removed,
    Paused,
    Disconnected,
    /// It ended by itself; Docker starts it again, after ever longer pauses.
    Crashed,
    /// It runs, but does not accept connections yet.
    Starting,
    /// It was started by another engine than the one that answers now.
    Elsewhere,
}

impl Trouble {
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::Stopped => "stopped",
            Trouble::Removed => "removed",
            Trouble::Paused => "paused",
            Trouble::Disconnected => "disconnected",
            Trouble::Crashed => "crashed",
            Trouble::Starting => "starting",
            Trouble::Elsewhere => "elsewhere",
        }
    }
}

/// One instance that does not serve.
#[derive(Debug, Clone)]
pub struct Difference {
    pub app: AppName,
    /// What is wrong with it now.
    pub trouble: Trouble,
    /// What was wrong first, or `Removed` if it was removed later: a repair is counted under this.
    pub first: Trouble,
    /// For people: what happened to it.
    pub detail: String,
    /// For people: why it could not be brought back yet.
    pub failure: Option<String>,
    /// In milliseconds since 1970.
    pub since: i64,
    attempts: u32,
    not_before: Instant,
}

struct Crashes {
    app: AppName,
    count: i64,
    /// How it ended the last time.
    end: String,
    at: i64,
}

#[derive(Default)]
struct Found {
    differences: BTreeMap<String, Difference>,
    /// How often the engine had restarted each instance at the last look.
    restarts: HashMap<String, i64>,
    crashes: BTreeMap<String, Crashes>,
    repaired: BTreeMap<(AppName, &'static str), u64>,
    crashed: BTreeMap<AppName, u64>,
    out_of_memory: BTreeMap<AppName, u64>,
    engine_away_since: Option<i64>,
    engine_id: Option<String>,
    /// The paths of the anonymous volumes of each instance.
    volumes: BTreeMap<String, (AppName, Vec<String>)>,
}

/// What the reconciler has found; see the module.
#[derive(Default)]
pub struct Tend {
    found: Mutex<Found>,
    /// Held for reading while an instance is brought back. Code that removes containers of a release
    /// that is no longer live first takes it for writing once: every repair that was begun for that
    /// release has then ended.
    pub repairs: RwLock<()>,
    /// Notified at a switch: from now on, other instances should serve.
    pub switched: Notify,
}

impl Tend {
    /// Records what a look at an instance found. Returns whether it serves but did not before, or the
    /// other way round.
    pub fn take(&self, instance: &Instance, found: Option<(Trouble, String)>) -> bool {
        let mut all = self.found.lock();
        let name = &instance.name;
        let Some((trouble, detail)) = found else {
            let Some(over) = all.differences.remove(name) else {
                return false;
            };
            let ms = now() - over.since;
            tracing::info!(app = %over.app, container = name, ms, "serves again");
            let key = (over.app, over.first.as_str());
            *all.repaired.entry(key).or_default() += 1;
            return true;
        };
        if let Some(known) = all.differences.get_mut(name) {
            if known.trouble != trouble {
                // What prevented a repair before may no longer apply, so try again at once.
                known.not_before = Instant::now();
            }
            if trouble == Trouble::Removed {
                known.first = trouble;
            }
            let was_elsewhere = known.trouble == Trouble::Elsewhere;
            known.trouble = trouble;
            known.detail = detail;
            return was_elsewhere != (trouble == Trouble::Elsewhere);
        }
        tracing::warn!(app = %instance.app, container = name, "the live release does not serve: {detail}");
        let difference = Difference {
            app: instance.app.clone(),
            trouble,
            first: trouble,
            detail,
            failure: None,
            since: now(),
            attempts: 0,
            not_before: Instant::now(),
        };
        all.differences.insert(name.clone(), difference);
        true
    }

    /// Counts how often the engine has restarted the instance since the last look; `end` says how it ended.
    pub fn count_restarts(
        &self,
        instance: &Instance,
        restarts: i64,
        end: String,
        out_of_memory: bool,
    ) {
        let mut all = self.found.lock();
        let before = all.restarts.insert(instance.name.clone(), restarts);
        let more = restarts - before.unwrap_or(restarts);
        if more <= 0 {
            return;
        }
        let (app, name) = (&instance.app, &instance.name);
        tracing::warn!(%app, container = name, restarts, "the live release crashed: it {end}");
        *all.crashed.entry(app.clone()).or_default() += more as u64;
        if out_of_memory {
            *all.out_of_memory.entry(app.clone()).or_default() += more as u64;
        }
        let of = all.crashes.entry(name.clone()).or_insert(Crashes {
            app: app.clone(),
            count: 0,
            end: String::new(),
            at: 0,
        });
        of.count += more;
        of.end = end;
        of.at = now();
    }

    /// Forgets instances that no longer belong to a live release.
    pub fn keep_only(&self, live: &HashSet<&str>) {
        let mut all = self.found.lock();
        all.differences
            .retain(|name, _| live.contains(name.as_str()));
        all.restarts.retain(|name, _| live.contains(name.as_str()));
        all.crashes.retain(|name, _| live.contains(name.as_str()));
        all.volumes.retain(|name, _| live.contains(name.as_str()));
    }

    /// Records the paths of an instance's anonymous volumes.
    pub fn has_volumes(&self, instance: &Instance, paths: Vec<String>) {
        let of = (instance.app.clone(), paths);
        self.found.lock().volumes.insert(instance.name.clone(), of);
    }

    /// The warnings about the anonymous volumes of all apps, or of one.
    pub fn volumes(&self, of: Option<&str>) -> Vec<String> {
        let all = self.found.lock();
        let of_app = all.volumes.values();
        let of_app = of_app.filter(|(app, _)| of.is_none_or(|of| of == app.as_str()));
        let mut said: Vec<_> = of_app
            .flat_map(|(app, paths)| {
                paths
                    .iter()
                    .map(move |path| format!("`{app}`: {}", volume(path)))
            })
            .collect();
        said.sort();
        said.dedup();
        said
    }

    /// Whether no request may be sent to the instance. One that another engine started may well serve.
    pub fn is_down(&self, instance: &str) -> bool {
        let all = self.found.lock();
        let found = all.differences.get(instance);
        found.is_some_and(|it| it.trouble != Trouble::Elsewhere)
    }

    /// What is wrong with an instance, and for people what happened to it.
    pub fn trouble(&self, instance: &str) -> Option<(Trouble, String)> {
        let all = self.found.lock();
        let found = all.differences.get(instance)?;
        Some((found.trouble, found.detail.clone()))
    }

    /// Begins an attempt to bring an instance back; returns what is wrong with it. `None` if it is not
    /// yet time for one, or if none is needed: Docker restarts a crashed instance itself, and one that
    /// is starting needs only time. A person has to say what becomes of one that is elsewhere.
    pub fn begin_attempt(&self, instance: &str) -> Option<Trouble> {
        let mut all = self.found.lock();
        let difference = all.differences.get_mut(instance)?;
        use Trouble::{Crashed, Elsewhere, Starting};
        if matches!(difference.trouble, Crashed | Starting | Elsewhere) {
            return None;
        }
        if Instant::now() < difference.not_before {
            return None;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << difference.attempts.min(7));
        difference.attempts += 1;
        difference.not_before = Instant::now() + pause.min(LONGEST_PAUSE);
        Some(difference.trouble)
    }

    /// Records why an attempt failed, or `None` if it succeeded; a failure that repeats is logged once.
    pub fn end_attempt(&self, instance: &str, failure: Option<String>) {
        let mut all = self.found.lock();
        let Some(difference) = all.differences.get_mut(instance) else {
            return;
        };
        if let Some(why) = &failure
            && difference.failure != failure
        {
            tracing::warn!(app = %difference.app, container = instance, "cannot bring it back yet: {why}");
        }
        difference.failure = failure;
    }

    /// How long to wait until the next look is worthwhile: at least 50 ms, at most `longest`.
    pub fn pause(&self, longest: Duration) -> Duration {
        let all = self.found.lock();
        let pauses = all.differences.values().map(|it| match it.trouble {
            Trouble::Crashed | Trouble::Starting if now() - it.since < 10_000 => {
                Duration::from_millis(50)
            }
            Trouble::Crashed | Trouble::Starting => Duration::from_secs(1),
            Trouble::Elsewhere => longest,
            _ => it.not_before.saturating_duration_since(Instant::now()),
        });
        let soonest = pauses.min().unwrap_or(longest);
        soonest.clamp(Duration::from_millis(50), longest)
    }

    pub fn engine_is_away(&self) {
        self.found.lock().engine_away_since.get_or_insert_with(now);
    }

    pub fn engine_is_back(&self) {
        self.found.lock().engine_away_since = None;
    }

    pub fn engine_away_since(&self) -> Option<i64> {
        self.found.lock().engine_away_since
    }

    pub fn engine_is(&self, id: Option<String>) {
        self.found.lock().engine_id = id;
    }

    /// The id of the engine that answers.
    pub fn engine_id(&self) -> Option<String> {
        self.found.lock().engine_id.clone()
    }

    /// What is wrong with an app, for people.
    pub fn problems(&self, app: &str) -> Vec<String> {
        let away = self.engine_away_since();
        let away = away.map(|since| {
            let seconds = (now() - since) / 1000;
            format!(
                "Docker has not answered for {seconds} s: deployments wait, live apps keep serving"
            )
        });
        let mut problems = self.differences(Some(app));
        problems.extend(away);
        problems.extend(self.volumes(Some(app)));
        problems
    }

    /// A sentence for each instance that does not serve or has crashed recently, of all apps or of one.
    pub fn differences(&self, of: Option<&str>) -> Vec<String> {
        let all = self.found.lock();
        let is_of = |app: &AppName| of.is_none_or(|of| of == app.as_str());
        let recent = |it: &Crashes| now() - it.at < SHOWN && is_of(&it.app);
        let mut sentences = Vec::new();
        for (name, it) in all.differences.iter().filter(|(_, it)| is_of(&it.app)) {
            // Of a crash is said below how often, too.
            if it.trouble == Trouble::Crashed && all.crashes.get(name).is_some_and(recent) {
                continue;
            }
            let (app, detail) = (&it.app, &it.detail);
            let seconds = (now() - it.since) / 1000;
            let mut text = format!("`{app}`: the container `{name}` {detail}, {seconds} s ago");
            if let Some(failure) = &it.failure {
                text += &format!("; it cannot be brought back yet: {failure}");
            }
            sentences.push(text);
        }
        for (name, it) in all.crashes.iter().filter(|(_, it)| recent(it)) {
            let (app, end, seconds) = (&it.app, &it.end, (now() - it.at) / 1000);
            sentences.push(match it.count {
                1 => format!("`{app}`: the container `{name}` crashed {seconds} s ago: it {end}"),
                n => format!(
                    "`{app}`: the container `{name}` keeps crashing: {n} times, last {seconds} s ago, when it \
                     {end}; Docker starts it again ever more slowly"
                ),
            });
        }
        sentences
    }

    /// The apps whose live release crashes, or did a moment ago.
    pub fn crashing(&self) -> BTreeSet<AppName> {
        let all = self.found.lock();
        let now_down = all.differences.values();
        let now_down = now_down.filter(|it| it.trouble == Trouble::Crashed);
        let just_now = all.crashes.values().filter(|it| now() - it.at < QUIET);
        let now_down = now_down.map(|it| it.app.clone());
        now_down.chain(just_now.map(|it| it.app.clone())).collect()
    }

    /// How many instances of each app do not serve.
    pub fn down(&self) -> BTreeMap<AppName, u64> {
        let mut down = BTreeMap::new();
        for difference in self.found.lock().differences.values() {
            *down.entry(difference.app.clone()).or_default() += 1;
        }
        down
    }

    /// How often an instance began to serve again, by app and by what had been wrong with it.
    pub fn repaired(&self) -> BTreeMap<(AppName, &'static str), u64> {
        self.found.lock().repaired.clone()
    }

    /// How often instances of live releases ended by themselves, by app.
    pub fn crashed(&self) -> BTreeMap<AppName, u64> {
        self.found.lock().crashed.clone()
    }

    /// How often they were killed because they used more memory than they may, by app.
    pub fn out_of_memory(&self) -> BTreeMap<AppName, u64> {
        self.found.lock().out_of_memory.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeploymentId, ReleaseId, ServiceName};

    #[test]
    fn a_crash_is_told_once() {
        let tend = Tend::default();
        let instance = Instance {
            name: "cutover-hello-d-0".into(),
            app: "hello".parse().unwrap(),
            release: ReleaseId::new(),
            service: ServiceName::web(),
            deployment: DeploymentId::new(),
            endpoint: None,
            mark: None,
            engine: None,
        };
        tend.count_restarts(&instance, 0, String::new(), false);
        tend.take(&instance, Some((Trouble::Crashed, "ended".into())));
        assert_eq!(tend.differences(None).len(), 1);
        tend.count_restarts(&instance, 1, "ended with exit code 3".into(), false);
        let told = tend.differences(None);
        assert!(
            told.len() == 1 && told[0].contains("exit code 3"),
            "{told:?}"
        );
    }
}
