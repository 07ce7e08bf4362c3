//! The command `beatkeeper`.

mod cli;

use std::process::ExitCode;

use clap::Parser;

/// glibc's allocator spends a third of the operator's time on putting freed pieces together again, and
/// keeps what it has once had.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
