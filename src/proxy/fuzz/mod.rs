//! What must hold whatever clients, apps or a damaged disk pass to the proxy. Each function takes any
//! bytes and panics where something does not hold: the fuzz targets of `fuzz/` search for such bytes,
//! and the tests here damage valid ones at random.

mod answers;
mod balancer;
mod control;
#[cfg(test)]
mod damage;
mod fields;
mod frames;
mod pipe;
mod requests;
mod table;

pub use answers::answers;
pub use balancer::balancer;
pub use control::control;
pub use fields::fields;
pub use frames::frames;
pub use requests::requests;
pub use table::table;

/// The size of the pieces to split `bytes` into, derived from the bytes themselves so that a finding
/// can be reproduced.
fn step(bytes: &[u8]) -> usize {
    1 + bytes.len() % 7
}
