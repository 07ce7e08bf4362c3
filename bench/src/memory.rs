//! A counting allocator, for the programs that report how much memory the core uses.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, which also counts the allocated bytes that were not freed.
pub struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// Returns how many bytes the program has allocated, if [`Counting`] is its allocator.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

#[allow(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: all calls are passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
