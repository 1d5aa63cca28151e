//! `cutover demo`.

pub mod load;
pub mod sample;
