//! `wharf schema`: the GraphQL schema in its definition language.

use clap::Args;

use crate::{
    cli::{self, failure::Result},
    graphql::schema,
};

/// Print the GraphQL schema
#[derive(Args)]
#[command(hide = true)]
pub(crate) struct Schema {}

impl Schema {
    #[expect(clippy::unused_self, reason = "commands are run alike; this one takes no flags yet")]
    pub(crate) fn run(&self) -> Result<()> {
        cli::print(schema::sdl().trim_end())
    }
}
