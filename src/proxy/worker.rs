//! The threads that carry requests. Each runs its own event loop, accepts its own connections and
//! keeps its own pools, so that a request never crosses from one core to another.

use std::cell::Cell;

/// More threads share a slot; only pools look at it.
pub const MAX: usize = 8;

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(0) };
}

/// Which of the pools is this thread's.
pub fn slot() -> usize {
    SLOT.get()
}

pub fn set_slot(slot: usize) {
    SLOT.set(slot % MAX);
}
