//! The command `beatkeeper`.

fn main() {}
