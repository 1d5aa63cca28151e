//! The rules of the house that no compiler checks.

mod arrows;
mod tokens;
mod tree;

mod engine;
mod forgotten;
mod imports;
