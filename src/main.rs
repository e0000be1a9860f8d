//! The `wharf` command.

// async-graphql nests the future of a schema one level for each domain; an optimized build follows all levels.
#![recursion_limit = "256"]

use std::process::ExitCode;

fn main() -> ExitCode {
    wharf::cli::run()
}
