//! Deliveries: verify -> parse -> push. Nothing here does I/O: headers and body in, pushes out. The
//! signature is verified before a byte of the body is parsed; headers, which most forges do not
//! sign, are trusted only for the choice of the parser.

pub mod forge;
mod header;
mod payload;
mod push;
mod receive;
mod refusal;
pub mod registry;
pub mod signature;

pub use forge::Forge;
pub use push::{Content, Push, Ref};
pub use receive::{Received, receive};
pub use refusal::Refusal;
pub use registry::{Notice, Pushed};

#[cfg(test)]
mod tests;
