//! `src/webhook/mod.rs` without what an app wants, which needs its configuration.

#[path = "../../src/webhook/forge/mod.rs"]
pub mod forge;
#[path = "../../src/webhook/header.rs"]
mod header;
#[path = "../../src/webhook/payload.rs"]
mod payload;
#[path = "../../src/webhook/push.rs"]
mod push;
#[path = "../../src/webhook/receive.rs"]
mod receive;
#[path = "../../src/webhook/signature.rs"]
pub mod signature;

pub use forge::Forge;
pub use push::{Push, Ref};
pub use receive::{Content, Received, Refusal, receive};
