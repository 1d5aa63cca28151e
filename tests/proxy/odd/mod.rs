//! Clients and apps that are hostile, broken or merely odd: what they do costs nobody else anything,
//! and nothing passes for what it is not.

mod apps;
mod clients;
mod http2;
mod websocket;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
