//! From a commit to an image: the engine's BuildKit asks for the files of its tree, which is never checked
//! out.

mod advice;
mod attributes;
mod bases;
mod cache_key;
mod checkout;
mod command;
mod context;
mod convert;
mod dockerfile;
mod error;
mod encode;
mod ignore;
mod image;
mod inputs;
mod left;
mod lfs;
mod link;
mod objects;
mod parts;
mod pattern;
mod procfile;
mod site;
mod ssh;
mod times;
mod walk;

pub use cache_key::cache_key;
pub use command::end_left;
pub use context::Context;
pub use error::BuildError;
pub use image::{Built, Request, image};
pub use inputs::{Inputs, Secret};
pub use procfile::procfile;
pub use site::SERVER;
