//! The forges' parsers and the signature code alone. They are pure, so that they build without the rest
//! of Cutover, in a minute and with every dependency instrumented.
#![allow(dead_code)]

#[path = "../../src/ids.rs"]
pub mod ids;
pub mod webhook;
