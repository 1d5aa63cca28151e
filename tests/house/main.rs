//! The rules of the house that no compiler checks.

mod forgotten;
mod tree;
