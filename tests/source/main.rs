//! From a ref to an image: repositories are fetched and pushed to, and commits built.

#[path = "../support/mod.rs"]
mod support;
// As the files of the demo name them.
use cutover::{cli, proxy};

mod build;
mod difference;
mod git_dir;
mod git_push;
mod inputs;
mod lfs;
mod mirror;
mod remote;
mod signatures;
mod submodules;
