//! Cutover: push a commit, and the new containers take over behind Cutover's own reverse proxy
//! without one dropped request.
//!
//! The modules stand in the order in which a push travels:
//!
//! ```text
//! delivery -> queue -> fetch -> build -> test -> release command -> start -> probe
//!          -> SWITCH -> drain -> bake -> retire
//! ```
//!
//! # Two processes
//!
//! `cutover serve` is the agent: [`webhook`]s, the [`api`], the queue and the line of
//! [`deploy`]ments, all in one SQLite [`store`]. `cutover proxy` is the data plane, [`proxy`]: it
//! holds the sockets and the route table, and knows nothing of git, Docker or deployments. The agent
//! sends it the whole table with a rising generation over a Unix socket; the proxy keeps it on disk
//! and serves from it when the agent is down.
//!
//! # A push, end to end
//!
//! 1. `api::webhooks` reads a body of at most 25 MiB; [`webhook::receive`] checks its signature and
//!    says what it holds. [`deploy::intake`] stores the delivery and a queued deployment in one
//!    transaction, and only then the forge gets its 202.
//! 2. The app's worker in [`deploy::queue`] wakes and calls [`deploy::run`], which reads like the
//!    line above. Each step stores that it begins before its effect, and that it is done together
//!    with the next step's beginning.
//! 3. [`source`] fetches the branch's tip into a bare mirror, without its history, or reads a
//!    repository on this machine where it stands; [`build`] streams the commit's tree to
//!    BuildKit and names the image; the image with the settings that it runs with is a release.
//! 4. [`engine`] starts the release's instances at fixed addresses of Cutover's own network, and
//!    they are probed until they are healthy.
//! 5. The switch is one transaction that makes the release the live one. The table that follows from
//!    it is published; when the proxy acknowledges, no request can take the old route any more.
//! 6. The old release's requests finish, then a bake watches the new one, then what is not live is
//!    stopped, and images beyond the kept ones are removed.
//! 7. The forge is told all along, beside the line: [`store::statuses`] records what is true and what
//!    waits in [`store::outbox`] in the transaction of each change, and [`notify`] sends it, however
//!    long the forge takes.
//!
//! # When something goes wrong
//!
//! [`state`] is a pure table of what may follow what. Before the switch a failure takes away
//! what was made, in `deploy::undo`, and the live release was never touched. After it there is only
//! forward; a bake that goes wrong queues a rollback, which is a deployment like any other.
//! [`deploy::recover`] is the one place that cleans up after a crash, and `deploy::checkpoint` names
//! the moments at which a test kills the agent to see that it does.

pub mod ids;
pub mod principal;
pub mod state;
pub mod tls;
mod vital;

pub mod config;
pub mod webhook;

pub mod deploy;

pub mod build;
pub mod engine;
pub mod proxy;
pub mod source;

pub mod api;
pub mod jobs;
pub mod notify;
pub mod store;

pub mod cli;
