//! The state of many images on all agents at once, one letter per pair: a page of the matrix takes a few kilobytes.

use std::sync::Arc;

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::base::Error;
use crate::base::identity::Identity;
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::fleet::presence::{AgentPresence, Presence};
use crate::fleet::service::Fleet;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::transfer::plan::sought;

/// The most images that one request may ask about: more than the largest screen shows.
const MAX_REFERENCES: usize = 500;

/// The state of images on all agents.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PresenceMatrix {
    /// The agents, by id. Each letter of a row is about the agent at the same position.
    agents: Vec<String>,
    /// The agents' architectures, in the same order; null for an agent that the server never reached.
    architectures: Vec<Option<String>>,
    /// One row per image and architecture.
    rows: Vec<PresenceRow>,
}

/// The state of an image on all agents.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PresenceRow {
    /// The image's canonical name.
    reference: String,
    /// The image's architecture.
    architecture: String,
    /// One letter per agent: `p`resent, `s`tale, `a`bsent, `u`nknown.
    states: String,
}

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct PresenceQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl PresenceQuery {
    /// The state of these images on every agent. References that name no image are left out.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn presence_matrix(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which images; 500 at most.")] references: Vec<String>,
    ) -> FieldResult<PresenceMatrix> {
        let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
        let catalog = ctx.data_unchecked::<Catalog>();
        if references.len() > MAX_REFERENCES {
            let why = format!("{MAX_REFERENCES} at most; ask for less at once");
            return Err(Error::invalid("references", why).into());
        }
        let (agents, architectures) = fleet
            .agents(caller)?
            .into_iter()
            .map(|agent| (agent.record.id, agent.about.map(|about| about.architecture)))
            .unzip();
        let mut rows = Vec::new();
        for reference in references {
            let images = match catalog.architectures(caller, &reference) {
                // The image was forgotten or renamed meanwhile; the other images are still valid.
                Err(Error::Missing { .. } | Error::Invalid { .. }) => continue,
                images => images?,
            };
            let variants = variants(&images);
            for image in &images {
                let record = &image.record;
                let canonical = record.canonical().to_string();
                let standings = fleet.image_presence(caller, &sought(record, &canonical, &variants))?;
                rows.push(PresenceRow {
                    states: standings.iter().map(letter).collect(),
                    architecture: record.architecture.clone(),
                    reference: canonical,
                });
            }
        }
        Ok(PresenceMatrix { agents, architectures, rows })
    }
}

/// What identifies the images of one name: an agent that holds any of them has a variant.
pub(crate) fn variants(images: &[Arc<Image>]) -> Vec<Identity<'_>> {
    images.iter().map(|image| image.record.identity()).collect()
}

fn letter(standing: &AgentPresence) -> char {
    match standing.presence {
        Presence::Present => 'p',
        Presence::Stale => 's',
        Presence::Absent => 'a',
        Presence::Unknown => 'u',
    }
}
