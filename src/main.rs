//! The `wharf` command.

// async-graphql nests the future of a schema as deep as it has domains; an optimized build follows it down.
#![recursion_limit = "256"]

use std::process::ExitCode;

fn main() -> ExitCode {
    wharf::cli::run()
}
