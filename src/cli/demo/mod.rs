//! `cutover demo`.

pub mod agent;
pub mod cleanup;
pub mod forge;
pub mod http;
pub mod load;
pub mod repository;
pub mod sample;
pub mod stage;
