//! How many bytes the liveness index keeps for each instance, counted by the allocator, as CSV.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use beatkeeper_bench::crowd::{Crowd, Size};

/// The system's allocator, that counts what it has given out and not got back.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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

fn main() {
    println!("instances,services,per_service,bytes,bytes_per_instance");
    for size in Size::ALL {
        let before = HELD.load(Ordering::Relaxed);
        let crowd = black_box(Crowd::new(size));
        let bytes = HELD.load(Ordering::Relaxed) - before;
        let Size { instances, services } = size;
        let each = bytes as f64 / instances as f64;
        println!("{instances},{services},{},{bytes},{each:.1}", size.per_service());
        drop(crowd);
    }
}
