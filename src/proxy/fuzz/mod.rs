//! What must hold whatever strangers, apps or a torn disk hand to the proxy. Each function takes any
//! bytes and panics where something does not hold: the fuzz targets of `fuzz/` look for such bytes, and
//! the tests here damage good ones at random.

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

/// A size to cut `bytes` by that comes from themselves, so that a finding can be seen again.
fn step(bytes: &[u8]) -> usize {
    1 + bytes.len() % 7
}
