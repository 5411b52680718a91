use std::process::ExitCode;

use clap::Parser as _;
use jetmesh::cli::{self, Args};

fn main() -> ExitCode {
    cli::main(&Args::parse())
}
