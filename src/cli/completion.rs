//! `wharf completion`: scripts with which a shell completes wharf's commands.

use clap::Args;
use clap_complete::Shell;

use crate::cli::{self, failure::Result};

/// Print a completion script for a shell
///
/// For example: wharf completion bash > ~/.local/share/bash-completion/completions/wharf
#[derive(Args)]
pub(crate) struct Completion {
    /// The shell to write it for
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self, mut command: clap::Command) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "wharf", &mut script);
        cli::print(String::from_utf8_lossy(&script).trim_end())
    }
}
