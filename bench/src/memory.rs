//! An allocator that counts, for the programs that say what the core keeps.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, that counts what it has given out and not got back.
pub struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// How many bytes the program holds, if [`Counting`] is its allocator.
pub fn held() -> usize {
    HELD.load(Ordering::Relaxed)
}

#[allow(unsafe_code, reason = "an allocator cannot be written otherwise")]
// SAFETY: all is passed on to the system's allocator as it came.
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
