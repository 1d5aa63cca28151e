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
#[path = "../../src/webhook/refusal.rs"]
mod refusal;
#[path = "../../src/webhook/signature.rs"]
pub mod signature;

pub use forge::Forge;
pub use push::{Content, Push, Ref};
pub use receive::{Received, receive};
pub use refusal::Refusal;
