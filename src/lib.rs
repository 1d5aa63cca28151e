//! Cutover: push a commit, and the new containers take over behind Cutover's own reverse proxy
//! without one dropped request.
//!
//! The modules are listed in the order in which a push travels:
//!
//! ```text
//! delivery -> queue -> fetch -> build -> test -> release command -> start -> probe
//!          -> SWITCH -> drain -> bake -> retire
//! ```
//!
//! # Two processes
//!
//! `cutover serve` is the agent: [`webhook`]s, the [`api`], the queue and the line of
//! [`deploy`]ments, with all of its state in one SQLite [`store`]. `cutover proxy` is the data plane,
//! [`proxy`]: it holds the sockets and the route table, and knows nothing about git, Docker or
//! deployments. The agent sends it the whole table with a rising generation over a Unix socket; the
//! proxy keeps it on disk and serves from it while the agent is down.
//!
//! # A push, end to end
//!
//! 1. A push arrives through one of three doors: a webhook, the post-receive hook of a repository on
//!    this machine, or git over HTTP. A door parses the push and identifies its sender, a
//!    [`principal`]. For webhooks, `api::webhooks` reads a body of at most 25 MiB and
//!    [`webhook::receive`] verifies its signature.
//! 2. [`deploy::intake`] decides about every ref that the push moved: it is deployed, or recorded with
//!    the reason why not. Delivery, decision and queued deployment are stored in one transaction;
//!    only then does the forge get its 202.
//! 3. The app's worker in [`deploy::queue`] wakes and calls [`deploy::run`], which reads like the
//!    line above. Each step stores that it begins before it takes effect; that it is done is stored
//!    together with the beginning of the next step.
//! 4. [`source`] fetches the branch's tip into a bare mirror, without its history, or reads a
//!    repository on this machine in place. [`build`] streams the commit's tree to BuildKit and tags
//!    the image. A release has one image and one set of settings for each of the app's services;
//!    `web` takes the requests.
//! 5. The app's test and release commands run in the new image as jobs: containers that end by
//!    themselves and belong to no route.
//! 6. [`engine`] starts the release's instances and answers with an endpoint for each one, a fixed
//!    address on Cutover's own network. They are probed until they are healthy. A canary, which no
//!    strategy starts yet, has its place here: the state `shifting`, between probe and switch, which
//!    can still be undone.
//! 7. The switch is one transaction that makes the release the live one. The resulting table is then
//!    published. A route divides its traffic into shares; there is one share of 100 without a canary.
//!    When the proxy acknowledges the table, no request can take the old route any more.
//! 8. The old release's requests finish, a bake watches the new release, what is not live is stopped,
//!    and images beyond those kept are removed.
//! 9. The forge is kept informed beside the line: [`store::statuses`] records the current status, and
//!    [`store::outbox`] what is still to be sent, in the transaction of each change. [`notify`] sends
//!    it, however long the forge takes.
//!
//! [`jobs`] is the agent's background work: it removes old logs, rows and left-over containers, and
//! reloads deploy.toml. (A job in the sense of step 5 is run by [`engine`].)
//!
//! # When something goes wrong
//!
//! [`state`] is a pure table of which state may follow which. Before the switch, a failure undoes what
//! was done, and the live release has not been touched: each file in `deploy::steps` holds a step and
//! its undo, and `deploy::undo` calls the undos in reverse order. After the switch, the only way is
//! forward; a failed bake queues a rollback, which is a deployment like any other.
//! [`deploy::recover`] is the one place that cleans up after a crash, and [`deploy::checkpoint`] names
//! the moments at which a test kills the agent to verify that it does.

pub mod ids;
mod join;
mod log_level;
mod log_limit;
mod mask;
pub mod outbound;
pub mod principal;
pub mod printable;
pub mod state;
pub mod tls;
mod vital;

pub mod config;
pub mod webhook;

pub mod deploy;

pub mod build;
pub mod certificates;
pub mod engine;
pub mod proxy;
pub mod source;

pub mod api;
pub mod jobs;
pub mod notify;
pub mod store;

pub mod cli;
