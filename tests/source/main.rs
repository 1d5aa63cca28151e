//! From a ref to an image: repositories are fetched and pushed to, and commits built.

#[path = "../support/mod.rs"]
mod support;

mod build;
mod git_push;
mod mirror;
mod remote;
