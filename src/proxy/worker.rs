//! The threads that handle requests. Each runs its own event loop, accepts its own connections and
//! keeps its own pools, so that a request never moves from one core to another.

use std::cell::Cell;

/// The number of slots. With more threads, some share a slot; only pools use it.
pub const MAX: usize = 8;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// The slot of this thread's pools.
pub fn slot() -> usize {
    SLOT.get()
}

pub fn set_slot(slot: usize) {
    SLOT.set(slot % MAX);
}
