//! `wharf compact`: frees the disk space that the database does not use any more.

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

/// Free disk space that the database no longer needs, while the server is stopped
///
/// What is removed leaves free space in the database's file, which new records use. A start of the server gives it back
/// to the system if half of the file or more is free and the file is larger than 32 MiB; this command does it in any
/// case. The database is written to a new file, which is read back before it replaces the old one: the disk must have
/// room for both.
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
