//! The steps of the line, in its order.

pub mod begin;
pub mod build;
pub mod command;
pub mod drain;
pub mod fetch;
pub mod probe;
pub mod retire;
pub mod start;
pub mod switch;
