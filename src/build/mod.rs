//! From a commit to an image: the engine's BuildKit asks for the files of its tree, which is never checked
//! out.

mod advice;
mod attributes;
mod bases;
mod cache_key;
mod checkout;
mod command;
mod context;
mod contexts;
mod convert;
mod dockerfile;
mod encode;
mod error;
mod frontend;
mod git_dir;
mod ignore;
mod image;
mod inputs;
mod instructions;
mod left;
mod lfs;
mod link;
mod objects;
mod parts;
mod pattern;
mod procfile;
mod renamed;
mod request;
mod resolved;
mod send;
mod site;
mod ssh;
mod times;
mod walk;

pub use cache_key::cache_key;
pub use command::end_left;
pub use context::Context;
pub use error::BuildError;
pub use image::{Built, image};
pub use inputs::{Inputs, Secret};
pub use procfile::procfile;
pub use request::Request;
pub use site::SERVER;
