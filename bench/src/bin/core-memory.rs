//! Prints as CSV how many bytes the liveness index keeps for each instance, as counted by the allocator.

use std::hint::black_box;

use beatkeeper_bench::instances::{Instances, Size};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() {
    println!("instances,services,bytes,bytes_per_instance");
    for size in Size::ALL {
        let before = ALLOCATOR.current_usage();
        let all = black_box(Instances::new(size));
        let bytes = ALLOCATOR.current_usage() - before;
        let Size { instances, services } = size;
        println!("{instances},{services},{bytes},{:.1}", bytes as f64 / instances as f64);
        drop(all);
    }
}
