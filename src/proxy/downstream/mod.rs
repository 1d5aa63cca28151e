//! The client's side: accepting connections, TLS, HTTP/1 and HTTP/2, and their limits.

pub mod certificates;
pub mod client_io;
pub mod handler;
pub mod http1;
pub mod http2;
pub mod limits;
pub mod listen;
pub mod packed;
pub mod response;
pub mod server;
pub mod tls;
pub mod unknown_names;
