//! `wharf schema`: the GraphQL schema in its definition language.

use std::io::{self, Write as _};

use clap::Args;

use crate::{
    cli::failure::{Failure, Result},
    graphql::schema,
};

/// Print the GraphQL schema
#[derive(Args)]
#[command(hide = true)]
pub(crate) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "commands are run alike; this one takes no flags yet")]
    pub(crate) fn run(&self) -> Result<()> {
        let written = io::stdout().write_all(schema::sdl().as_bytes());
        written.map_err(|why| Failure::failed("schema", why.to_string()))
    }
}
