//! `wharf serve`: the server.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::failure::{Failure, Result};

/// Run the server
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Directory for everything the server keeps; made if missing
    #[arg(long, value_name = "DIR", default_value = "./wharf-data")]
    pub(crate) data_dir: PathBuf,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    pub(crate) listen: SocketAddr,
    /// Name that browsers and clients reach this server by, besides loopback ones; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) host: Vec<String>,
    /// How logs are written: text on a terminal and JSON elsewhere, or always one of them
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub(crate) log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace, or a filter such as info,wharf::scan=debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// Lines for people
    Text,
    /// One JSON object per line
    Json,
}

impl Serve {
    pub(crate) fn run(&self) -> Result<()> {
        Err(Failure::failed(self.listen.to_string(), "serve is not built yet"))
    }
}
