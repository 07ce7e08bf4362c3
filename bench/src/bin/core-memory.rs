//! Prints as CSV how many bytes the liveness index keeps for each instance, as counted by the allocator.

use std::hint::black_box;

use beatkeeper_bench::crowd::{Crowd, Size};
use beatkeeper_bench::memory::{Counting, held};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    println!("instances,services,per_service,bytes,bytes_per_instance");
    for size in Size::ALL {
        let before = held();
        let crowd = black_box(Crowd::new(size));
        let bytes = held() - before;
        let Size { instances, services } = size;
        let each = bytes as f64 / instances as f64;
        println!("{instances},{services},{},{bytes},{each:.1}", size.per_service());
        drop(crowd);
    }
}
