use std::process::ExitCode;

use jetmesh::cli;

/// An event makes a hundred small allocations, several of them on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::main()
}
