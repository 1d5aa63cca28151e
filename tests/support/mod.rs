//! What several test programs share; each uses its own part of it.

#![allow(dead_code)]

pub mod demo;
pub mod docker;
pub mod hello;
pub mod mix;
pub mod tls;
pub mod tool;
pub mod wait;
