//! Pure bytes and heads, on both sides: what a message must look like. No I/O.

pub mod app_body;
pub mod app_head;
pub mod framing;
pub mod head;
pub mod headers;
pub mod proxy_protocol;
pub mod request_id;
pub mod request_target;
pub mod trace_parent;
pub mod websocket;
