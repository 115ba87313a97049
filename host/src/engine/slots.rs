//! Which of a component's guests has a slot of the pool that none had before.
//!
//! A pool gives a guest's memory to the next guest of the same component if it can.
//! Where all of a memory is written anew, as for snapshots, the first time takes ten
//! times as long as the others: until then its pages are those of the artifact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// The slots of one component.
#[derive(Debug, Default)]
pub struct PoolSlots {
    in_use: AtomicU32,
    /// Most that were in use at once.
    had: AtomicU32,
}

/// A slot in use, until this is dropped.
#[derive(Debug)]
pub struct PoolSlot {
    slots: Arc<PoolSlots>,
    /// Whether no guest of this component has had it.
    pub is_new: bool,
}

impl PoolSlots {
    /// Call before a guest is instantiated.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> PoolSlot {
        let in_use = self.in_use.fetch_add(1, Ordering::Relaxed) + 1;
        let is_new = self.had.fetch_max(in_use, Ordering::Relaxed) < in_use;
        PoolSlot { slots: Arc::clone(self), is_new }
    }
}

impl Drop for PoolSlot {
    fn drop(&mut self) {
        self.slots.in_use.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_new_once() {
        let slots: Arc<PoolSlots> = Arc::default();
        let (one, two) = (slots.take(), slots.take());
        assert!(one.is_new && two.is_new);
        drop(one);
        assert!(!slots.take().is_new);
        let again = slots.take();
        assert!(!again.is_new && slots.take().is_new);
    }
}
