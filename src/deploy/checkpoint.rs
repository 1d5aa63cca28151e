//! Named moments at which a test kills the agent, or makes it panic, to see that nothing is lost. In
//! release builds reaching one does nothing.

use crate::state::Step;

/// A moment between an effect and what is written about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checkpoint {
    /// git has accepted a push; no deployment is stored.
    Taken,
    /// The deployment is stored; nobody has been told.
    Enqueued,
    /// The step's intent is stored; nothing has been done.
    Started(Step),
    /// The step has taken effect; that it is done is not stored.
    Effected(Step),
    /// A deployment has failed; nothing has been undone.
    Undoing,
    /// Everything is undone; the rest state is not stored.
    Undone,
    /// The rest state is stored.
    Ended,
    /// An old instance has stopped in the background; its container still exists.
    Stopped,
    /// A reload has ended the workers that it has to end; nothing is stored.
    Reloading,
    /// What a reload changes is stored; nothing else has been done.
    Reloaded,
    /// That an app is to be removed is stored; nothing has been done.
    Removing,
    /// No release of a removed app is live in the database; the proxy still routes to it.
    TakenOff,
    /// One container of a removed app is gone.
    Removed,
    /// The next key of the secrets is on disk; nothing is sealed with it.
    Rekeying,
    /// Everything is sealed with the next key, which has not taken the old one's place.
    Rekeyed,
}

impl Checkpoint {
    /// Every checkpoint on the way of a deployment.
    pub fn all() -> Vec<Checkpoint> {
        use Checkpoint::*;
        // No deployment has a canary yet.
        let steps = Step::ALL
            .into_iter()
            .filter(|step| *step != Step::Canary)
            .flat_map(|step| [Started(step), Effected(step)]);
        [Taken, Enqueued]
            .into_iter()
            .chain(steps)
            .chain([Undoing, Undone, Ended, Stopped])
            .collect()
    }

    /// `taken`, `enqueued`, `fetch.started`, `fetch.effected`, …
    pub fn name(self) -> String {
        match self {
            Checkpoint::Taken => "taken".into(),
            Checkpoint::Enqueued => "enqueued".into(),
            Checkpoint::Started(step) => format!("{step}.started"),
            Checkpoint::Effected(step) => format!("{step}.effected"),
            Checkpoint::Undoing => "undoing".into(),
            Checkpoint::Undone => "undone".into(),
            Checkpoint::Ended => "ended".into(),
            Checkpoint::Stopped => "stopped".into(),
            Checkpoint::Reloading => "reloading".into(),
            Checkpoint::Reloaded => "reloaded".into(),
            Checkpoint::Removing => "removing".into(),
            Checkpoint::TakenOff => "taken_off".into(),
            Checkpoint::Removed => "removed".into(),
            Checkpoint::Rekeying => "rekeying".into(),
            Checkpoint::Rekeyed => "rekeyed".into(),
        }
    }

    /// Ends the process as `kill -9` would if `CUTOVER_KILL_AT` names this moment; panics if
    /// `CUTOVER_PANIC_AT` does.
    #[cfg(debug_assertions)]
    pub fn reach(self) {
        if std::env::var("CUTOVER_PANIC_AT").is_ok_and(|name| name == self.name()) {
            panic!("CUTOVER_PANIC_AT");
        }
        if std::env::var("CUTOVER_KILL_AT").is_ok_and(|name| name == self.name()) {
            let me = rustix::process::getpid();
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }

    #[cfg(not(debug_assertions))]
    pub fn reach(self) {}
}
