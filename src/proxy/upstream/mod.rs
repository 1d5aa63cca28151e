//! The app's side: connections to targets, kept and used again.

pub mod app_io;
pub mod buffer;
pub mod connection;
pub mod http2;
pub mod pool;
pub mod probe;
pub mod replay;
pub mod request_body;
pub mod target;
pub mod upload;
pub mod via;
