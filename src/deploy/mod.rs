//! From a queued deployment to a rest state.

pub mod state;
