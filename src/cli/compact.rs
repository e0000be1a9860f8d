//! `wharf compact`: the database without the room that nothing takes any more.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use crate::{
    cli::{
        self,
        failure::{Failure, Result},
        json, serve, text,
    },
    store::compact,
};

/// Give the disk back what the database does not need any more, while the server is stopped
///
/// What is removed leaves room in the database's file, which is used for what comes. A start of the server gives it back
/// where half of the file or more is free and the file is larger than 32 MiB; this does it in any case. The database is
/// written to a new file, which is read back before it takes the place of the old one: there has to be room for both.
#[derive(Args)]
pub(crate) struct Compact {
    /// The stopped server's data directory
    #[arg(long, value_name = "DIR", default_value = serve::DATA_DIR)]
    data_dir: PathBuf,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

impl Compact {
    pub(crate) fn run(&self) -> Result<()> {
        let done = compact::compact(&self.data_dir);
        let done = done.map_err(|why| Failure::failed("compact", why.to_string()))?;
        if self.json {
            return json::print(&json!({"before": done.before, "after": done.after}));
        }
        cli::print(&format!("{} before, {} now", text::size(done.before), text::size(done.after)))
    }
}
