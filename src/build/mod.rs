//! From a commit to an image: its tree is streamed to the engine's BuildKit, never checked out.

mod advice;
mod bases;
mod cache_key;
mod context;
mod error;
mod ignore;
mod image;
mod lfs;
mod link;
mod objects;
mod pattern;
mod send;
mod walk;

pub use cache_key::cache_key;
pub use context::Context;
pub use error::BuildError;
pub use image::{Built, Request, image};
