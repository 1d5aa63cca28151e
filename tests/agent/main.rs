//! The agent and its proxy as programs, from a push to what a client gets: real repositories, a real
//! Docker Engine, real requests.

#[path = "../support/mod.rs"]
mod support;
// As the files of the demo name them.
use cutover::{cli, proxy};

mod authority;
mod browser;
mod counter;
mod forge;
mod forge_status;
mod git;
mod server;

mod accessible;
mod bad_flood;
mod bad_input;
mod bake;
mod bake_traffic;
mod base_images;
mod builder_killed;
mod builders;
mod cancel;
mod certificates;
mod ci;
mod complaints;
mod crash;
mod cron;
mod dashboard;
mod database;
mod docker_away;
mod faults;
mod frontends;
mod gate;
mod git_push_live;
mod health;
mod images;
mod limits;
mod links;
mod long_log;
mod not_ours;
mod nothing_to_deploy;
mod notify;
mod orphans;
mod output;
mod outside;
mod pin;
mod post_receive;
mod processes;
mod proxy_settings;
mod push_filter;
mod push_once;
mod push_paths;
mod push_supersedes;
mod push_to_live;
mod queue;
mod reasons;
mod reconcile;
mod record;
mod recreate;
mod releases;
mod reload;
mod renewal;
mod retire;
mod running;
mod sample;
mod secrets;
mod session;
mod sites;
mod strangers;
mod tokens;
mod told;
mod traces;
mod trusted;
mod volumes;
mod workers;
