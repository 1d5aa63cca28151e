//! The forges' parsers, the signature code and the proxy, without the rest of Cutover: its database,
//! its Docker client and its OpenSSL would take many times as long to build.
#![allow(dead_code)]

#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/proxy/mod.rs"]
pub mod proxy;
pub mod webhook;
