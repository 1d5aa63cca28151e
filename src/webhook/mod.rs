//! Deliveries: verify -> parse -> push. Everything here is pure: headers and body in, pushes out.
//! The signature is checked before a byte of the body is parsed, and headers, which no forge signs,
//! are trusted for nothing but the choice of the parser.

pub mod forge;
mod header;
mod payload;
mod push;
mod receive;
pub mod signature;

pub use forge::Forge;
pub use push::{Push, Ref};
pub use receive::{Content, Received, Refusal, receive};

#[cfg(test)]
mod tests;
