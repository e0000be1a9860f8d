//! The images that agents have: of one agent, those that the catalog does not know, those that are pinned, and what an
//! unload would take.

use std::sync::Arc;

use async_graphql::{Context, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::fleet::fold::fold;
use crate::graphql::agents::ImageUsage;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::scalar::BigInt;
use crate::transfer::pins::{Pin, Pins};
use crate::transfer::residents::UnknownImage as Unknown;
use crate::transfer::room::{Going, Resident, Stay};
use crate::transfer::service::Transfers;

/// The most agents that an image names.
const MAX_AGENTS: usize = 1_000;

/// An image that goes from an agent to make room, or would.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct LeavingImage {
    /// The engine's id of it.
    digest: String,
    /// Its names; maybe none.
    names: Vec<String>,
    /// Its size on the agent, with layers that it shares, in bytes.
    size_bytes: BigInt,
    /// How many bytes come free with it, at most.
    frees_bytes: BigInt,
    /// Whether the catalog knows it. If not, it can't be loaded again.
    known: bool,
    /// How it is used.
    usage: ImageUsage,
}

impl From<Going> for LeavingImage {
    fn from(going: Going) -> Self {
        let Going { resident, frees } = going;
        Self {
            digest: resident.held.digest.to_string(),
            names: resident.held.names.clone(),
            size_bytes: BigInt(resident.held.size_bytes),
            frees_bytes: BigInt(frees),
            known: resident.is_known,
            usage: resident.usage.into(),
        }
    }
}

/// An image on an agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct AgentImage {
    /// The engine's id of it.
    digest: String,
    /// Its names; maybe none.
    names: Vec<String>,
    /// Its size on the agent, with layers that it shares, in bytes.
    size_bytes: BigInt,
    /// Whether the catalog knows it: its content, or one of its names.
    known: bool,
    /// How it is used.
    usage: ImageUsage,
    /// Who wants it there: a rule, or a task that loads it.
    wanted_by: Option<String>,
    /// Whether a person pinned it there.
    pinned: bool,
    /// Why it stays when room is made: `in-use` (also if that was so when its agent last told), `wanted`, `pinned`, `fresh`
    /// (it came within the last hour, or may have: its agent is watched for less) or `doubt` (the server does not believe
    /// its clock); null if it may go.
    stays: Option<&'static str>,
}

fn word(stay: &Stay) -> &'static str {
    match stay {
        Stay::InUse | Stay::WasInUse => "in-use",
        Stay::Wanted(_) => "wanted",
        Stay::Pinned => "pinned",
        Stay::Fresh | Stay::Unwatched => "fresh",
        Stay::Doubt => "doubt",
    }
}

impl From<(Resident, Option<Stay>)> for AgentImage {
    fn from((resident, stay): (Resident, Option<Stay>)) -> Self {
        Self {
            digest: resident.held.digest.to_string(),
            names: resident.held.names.clone(),
            size_bytes: BigInt(resident.held.size_bytes),
            known: resident.is_known,
            usage: resident.usage.into(),
            wanted_by: resident.wanted_by,
            pinned: resident.is_pinned,
            stays: stay.as_ref().map(word),
        }
    }
}

/// An image on agents that the catalog does not know.
pub(crate) struct UnknownImage(Unknown);

#[Object(rename_fields = "snake_case")]
impl UnknownImage {
    /// The engines' id of it.
    async fn digest(&self) -> &str {
        self.0.digest.as_str()
    }

    /// Its names; maybe none.
    async fn names(&self) -> &[String] {
        &self.0.names
    }

    /// Its size on the agent where it is largest, with layers that it shares, in bytes.
    async fn size_bytes(&self) -> BigInt {
        BigInt(self.0.size_bytes)
    }

    /// The agents that have it; the first 1,000.
    async fn agents(&self) -> &[String] {
        self.0.agents.get(..MAX_AGENTS).unwrap_or(&self.0.agents)
    }

    /// The agents that have it, folded.
    async fn folded(&self) -> String {
        fold(&self.0.agents)
    }

    /// How many agents have it.
    async fn count(&self) -> i32 {
        count(self.0.agents.len())
    }

    /// On how many of them a container uses it, as far as they tell.
    async fn in_use(&self) -> i32 {
        count(self.0.in_use)
    }

    /// When a container last used it, on any of them, in RFC 3339; null if none was seen.
    async fn last_used_at(&self) -> Option<String> {
        self.0.last_used.map(|at| at.to_string())
    }

    /// Since when no container was seen to use it on any of them, in RFC 3339; null if one of them does not tell.
    async fn unused_since(&self) -> Option<String> {
        self.0.idle_since.map(|at| at.to_string())
    }
}

/// An image that stays on agents, whatever needs their room.
pub(crate) struct ImagePin(Arc<Pin>);

#[Object(rename_fields = "snake_case")]
impl ImagePin {
    /// Its canonical name.
    async fn reference(&self) -> &str {
        &self.0.image
    }

    /// The expression that selects the agents on which it stays; it is evaluated anew each time.
    async fn target_agents(&self) -> &str {
        &self.0.target_agents
    }

    /// When it was pinned, in RFC 3339.
    async fn created_at(&self) -> String {
        self.0.created_at.to_string()
    }

    /// The e-mail address of the user who pinned it.
    async fn created_by(&self) -> &str {
        &self.0.created_by
    }
}

outcome!(
    /// The result of `pin_image`.
    PinImage,
    /// The pin.
    image_pin: ImagePin
);
outcome!(
    /// The result of `unpin_image`.
    UnpinImage
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct RoomQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RoomQuery {
    /// All images on an agent by its last report, with their use and why they stay when room is made.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn agent_images(&self, ctx: &Context<'_>, agent_id: String) -> FieldResult<Vec<AgentImage>> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        Ok(transfers.images_on(caller, &agent_id).await?.into_iter().map(Into::into).collect())
    }

    /// The images on agents that the catalog does not know, the largest first. `unload_image` takes them by a name or by
    /// the digest.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn unknown_images(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "On which agents; on all if null.")] target_agents: Option<String>,
    ) -> FieldResult<Vec<UnknownImage>> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        let expression = target_agents.as_deref().unwrap_or("*");
        Ok(transfers.unknown_images(caller, expression).await?.into_iter().map(UnknownImage).collect())
    }

    /// The images that are pinned, by name.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn image_pins(&self, ctx: &Context<'_>) -> FieldResult<Vec<ImagePin>> {
        let (caller, pins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Pins>());
        Ok(pins.list(caller)?.into_iter().map(ImagePin).collect())
    }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct RoomMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl RoomMutation {
    /// Pins an image on agents: neither retention nor `make_room` takes it there. A pin of the same image gives way.
    async fn pin_image(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Any reference; the full name of an image that the catalog does not know.")]
        reference: String,
        #[graphql(desc = "On which agents, also those to come; on all if null.")] target_agents: Option<
            String,
        >,
    ) -> Option<PinImage> {
        let (caller, pins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Pins>());
        let expression = target_agents.as_deref().unwrap_or("*");
        Some(pins.pin(caller, &reference, expression).await.map(ImagePin).into())
    }

    /// Removes the pin of an image.
    async fn unpin_image(&self, ctx: &Context<'_>, reference: String) -> Option<UnpinImage> {
        let (caller, pins) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Pins>());
        Some(pins.unpin(caller, &reference).await.into())
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
