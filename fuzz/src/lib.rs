//! The forges' parsers, the signature code and the proxy, without the rest of Cutover: its database and
//! its Docker client would take many times as long to build.
#![allow(dead_code)]

#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/log_level.rs"]
mod log_level;
#[path = "../../src/log_limit.rs"]
mod log_limit;
#[path = "../../src/printable.rs"]
mod printable;
#[path = "../../src/proxy/mod.rs"]
pub mod proxy;
pub mod webhook;
