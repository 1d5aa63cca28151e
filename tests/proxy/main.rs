//! The data plane: the proxy in this process or as a program, and apps on loopback sockets. It needs
//! no Docker.

#[path = "../support/mod.rs"]
mod support;
// As the files of the demo name it.
use cutover::cli;

mod grpc_app;
mod proxy;
mod version;

mod connecting;
mod front;
mod grpc;
mod http2;
mod load;
mod odd;
mod outside;
mod places;
mod routing;
mod shares;
mod streams;
mod switch;
mod takeover;
mod tls;
mod traces;
mod wire;
