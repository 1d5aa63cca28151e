//! `cutover demo`.

pub mod sample;
