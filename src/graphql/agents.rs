//! Agents in Backend.AI's shapes, and the images they hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::access::visibility;
use crate::base::reference::shown;
use crate::base::walk::Meter;
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::fleet::agent::{Agent, Status};
use crate::fleet::presence::Presence;
use crate::fleet::service::{AgentChange, Fleet};
use crate::fleet::usage::ImageUse;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::field::{Field, Read, Record, number};
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::{Slice, rows, stretch, walk};
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::page::MAX_ROWS;
use crate::graphql::kit::scalar::BigInt;
use crate::graphql::presence::variants;
use crate::transfer::plan::sought;

/// An agent: a container engine that images are loaded on.
pub(crate) struct AgentNode(Agent);

impl From<Agent> for AgentNode {
    fn from(agent: Agent) -> Self {
        Self(agent)
    }
}

/// Fields that only Backend.AI's scheduler uses are constants here, in the shape its clients expect.
#[Object(name = "Agent", rename_fields = "snake_case")]
impl AgentNode {
    /// Its id.
    async fn id(&self) -> Option<&str> {
        Some(&self.0.record.id)
    }

    /// `ALIVE` or `LOST`.
    async fn status(&self) -> Option<String> {
        Some(self.0.status.as_str().to_ascii_uppercase())
    }

    /// Why it is lost, or why it can't be reached at the moment.
    async fn status_reason(&self) -> Option<&str> {
        match &self.0.status {
            Status::Alive => self.0.away.as_deref(),
            Status::Lost { reason, .. } => Some(reason),
        }
    }

    /// When it was lost, in RFC 3339.
    async fn lost_at(&self) -> Option<String> {
        match &self.0.status {
            Status::Alive => None,
            Status::Lost { since, .. } => Some(since.to_string()),
        }
    }

    /// Its architecture, as `uname -m` prints it.
    async fn architecture(&self) -> Option<&str> {
        self.0.about.as_ref().map(|about| about.architecture.as_str())
    }

    /// Its operating system.
    async fn os(&self) -> Option<&str> {
        self.0.about.as_ref().map(|about| about.os.as_str())
    }

    /// Its container engine: `docker`, `podman`, `containerd`, ...
    async fn engine(&self) -> Option<&str> {
        self.0.about.as_ref().map(|about| about.kind.as_str())
    }

    /// The engine's version.
    async fn version(&self) -> Option<&str> {
        self.0.about.as_ref().map(|about| about.version.as_str())
    }

    /// The address under which the engine is reached.
    async fn addr(&self) -> Option<&str> {
        Some(&self.0.record.address)
    }

    /// The scaling group it is in.
    async fn scaling_group(&self) -> Option<&str> {
        Some(&self.0.record.scaling_group)
    }

    /// Always `local`.
    async fn region(&self) -> Option<&str> {
        Some("local")
    }

    /// When the server first reached it, in RFC 3339.
    async fn first_contact(&self) -> Option<String> {
        Some(self.0.record.first_contact.to_string())
    }

    /// The labels an admin gave it.
    async fn labels(&self) -> Vec<AgentLabel> {
        labels(&self.0.record.labels)
    }

    /// The free room for images, in bytes; null if the engine does not tell.
    async fn free_bytes(&self) -> Option<BigInt> {
        self.0.free_bytes().map(BigInt)
    }

    /// The total room for images, in bytes; null if the engine does not tell.
    async fn total_bytes(&self) -> Option<BigInt> {
        self.0.disk.as_ref().and_then(|disk| disk.total_bytes).map(BigInt)
    }

    /// The room that its images take, in bytes.
    async fn images_bytes(&self) -> Option<BigInt> {
        self.0.disk.as_ref().map(|disk| BigInt(disk.images_bytes))
    }

    /// Whether it accepts new images.
    async fn schedulable(&self) -> Option<bool> {
        Some(self.0.is_schedulable())
    }

    /// Constant; kept for Backend.AI's clients.
    async fn cpu_cur_pct(&self) -> Option<f64> {
        Some(0.0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn mem_cur_bytes(&self) -> Option<f64> {
        Some(0.0)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn available_slots(&self) -> Option<&str> {
        Some("{}")
    }

    /// Constant; kept for Backend.AI's clients.
    async fn occupied_slots(&self) -> Option<&str> {
        Some("{}")
    }

    /// Constant; kept for Backend.AI's clients.
    async fn hardware_metadata(&self) -> Option<&str> {
        Some("{}")
    }

    /// Constant; for Backend.AI's clients, which look for these two keys.
    async fn live_stat(&self) -> Option<&str> {
        Some(r#"{"node": {}, "devices": {}}"#)
    }

    /// Constant; kept for Backend.AI's clients.
    async fn local_config(&self) -> Option<&str> {
        Some("{}")
    }
}

impl Record for Agent {
    type View<'a> = &'a Self;

    fn row(view: Self::View<'_>) -> &Self {
        view
    }

    fn fields() -> &'static [Field<Self>] {
        &[
            Field { name: "id", read: Read::Text(|agent| Some(agent.record.id.as_str().into())) },
            Field {
                name: "status",
                read: Read::Text(|agent| Some(agent.status.as_str().to_ascii_uppercase().into())),
            },
            Field {
                name: "scaling_group",
                read: Read::Text(|agent| Some(agent.record.scaling_group.as_str().into())),
            },
            Field { name: "addr", read: Read::Text(|agent| Some(agent.record.address.as_str().into())) },
            Field { name: "region", read: Read::Text(|_| Some("local".into())) },
            Field { name: "schedulable", read: Read::Truth(|agent| Some(agent.is_schedulable())) },
            Field { name: "first_contact", read: Read::Time(|agent| Some(agent.record.first_contact)) },
            Field {
                name: "lost_at",
                read: Read::Time(|agent| match &agent.status {
                    Status::Alive => None,
                    Status::Lost { since, .. } => Some(*since),
                }),
            },
            Field {
                name: "architecture",
                read: Read::Text(|agent| Some(agent.about.as_ref()?.architecture.as_str().into())),
            },
            Field { name: "os", read: Read::Text(|agent| Some(agent.about.as_ref()?.os.as_str().into())) },
            Field {
                name: "engine",
                read: Read::Text(|agent| Some(agent.about.as_ref()?.kind.as_str().into())),
            },
            Field {
                name: "version",
                read: Read::Text(|agent| Some(agent.about.as_ref()?.version.as_str().into())),
            },
            Field {
                name: "free_bytes",
                read: Read::Number(|agent| agent.disk.as_ref()?.free_bytes.map(number)),
            },
            Field {
                name: "total_bytes",
                read: Read::Number(|agent| agent.disk.as_ref()?.total_bytes.map(number)),
            },
            Field {
                name: "images_bytes",
                read: Read::Number(|agent| Some(number(agent.disk.as_ref()?.images_bytes))),
            },
            Field {
                name: "labels",
                read: Read::Keyed(|agent, key| Some(agent.record.labels.get(key)?.as_str().into())),
            },
        ]
    }
}

/// A label of an agent.
#[derive(SimpleObject)]
pub(crate) struct AgentLabel {
    /// Its key.
    key: String,
    /// Its value.
    value: String,
}

fn labels(labels: &BTreeMap<String, String>) -> Vec<AgentLabel> {
    labels.iter().map(|(key, value)| AgentLabel { key: key.clone(), value: value.clone() }).collect()
}

/// A page of agents.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct AgentList {
    /// The rows of this page.
    items: Option<Vec<Option<AgentNode>>>,
    /// The number of rows on all pages together.
    total_count: Option<i32>,
}

/// The state of an image on an agent.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ImagePresence {
    /// The agent.
    agent: String,
    /// The image's canonical name.
    reference: String,
    /// The image's architecture.
    architecture: String,
    /// The digest that the catalog has for the image.
    digest: String,
    /// `present`, `stale`, `absent` or `unknown`.
    state: &'static str,
    /// How what the name means there is used; null if the name is not there.
    usage: Option<ImageUsage>,
}

/// How an image on an agent is used. All times are in RFC 3339, by the server's clock.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ImageUsage {
    /// Whether a container made from it exists, running or not; null if the agent does not tell.
    in_use: Option<bool>,
    /// When such a container was last seen; the present time while there is one. Null if none was seen.
    last_used_at: Option<String>,
    /// Since when no container was seen to use it: its last use, or else when it came, or else when the server began to
    /// watch the agent. Null if the agent does not tell: then it is not known.
    unused_since: Option<String>,
    /// When it came to the agent, or was last asked for there; null if it was there before the server watched.
    came_at: Option<String>,
}

impl From<ImageUse> for ImageUsage {
    fn from(known: ImageUse) -> Self {
        Self {
            in_use: known.is_told.then_some(known.is_in_use),
            last_used_at: known.last_used.map(|at| at.to_string()),
            unused_since: known.is_told.then(|| known.idle_since.to_string()),
            came_at: known.came.map(|at| at.to_string()),
        }
    }
}

/// The set of agents that an expression names now.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct AgentSetPreview {
    /// Whether the expression names a set.
    ok: bool,
    /// The set in folded form: `gpu[01-04]`.
    folded: Option<String>,
    /// The number of agents in the set.
    count: i32,
    /// The agents of the set that do not answer.
    offline: Vec<String>,
    /// The agents of the set, in order; the first 10,000.
    names: Vec<String>,
    /// What is wrong with the expression.
    error: Option<AgentSetError>,
}

/// What is wrong with an expression, and where.
#[derive(SimpleObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct AgentSetError {
    /// `SYNTAX`, `UNKNOWN_AGENT`, ...
    code: String,
    /// The position of the mistake, in bytes from the start.
    position: i32,
    /// What is wrong, for people.
    message: String,
    /// The expression, and below it a caret that marks the mistake.
    caret: String,
}

/// The properties of an agent that an admin may change.
#[derive(InputObject)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct ModifyAgentInput {
    /// The scaling group it is in.
    scaling_group: Option<String>,
    /// Labels to set; an empty value removes one.
    labels: Option<Vec<AgentLabelInput>>,
    /// If false, the agent gets no new images. It keeps the images it has and finishes those it is loading.
    schedulable: Option<bool>,
}

/// A label to set.
#[derive(InputObject)]
pub(crate) struct AgentLabelInput {
    /// Its key.
    key: String,
    /// Its value.
    value: String,
}

outcome!(
    /// The result of `modify_agent`.
    ModifyAgent
);

/// The queries. All are for super-admins.
#[derive(Default)]
pub(crate) struct AgentQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl AgentQuery {
    /// One agent.
    async fn agent(&self, ctx: &Context<'_>, agent_id: String) -> FieldResult<Option<AgentNode>> {
        let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
        Ok(Some(AgentNode(fleet.agent(caller, &agent_id)?)))
    }

    /// All agents, by id.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn agents(
        &self,
        ctx: &Context<'_>,
        scaling_group: Option<String>,
        #[graphql(desc = "`ALIVE` or `LOST`.")] status: Option<String>,
    ) -> FieldResult<Option<Vec<Option<AgentNode>>>> {
        let agents = matching(ctx, scaling_group.as_deref(), status.as_deref())?;
        Ok(Some(rows(agents)))
    }

    /// A page of the agents, by id.
    #[expect(clippy::too_many_arguments, reason = "what the official clients send")]
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn agent_list(
        &self,
        ctx: &Context<'_>,
        limit: i32,
        offset: i32,
        #[graphql(desc = "As in `scaling_group == \"gpu\" & free_bytes > 5e10`.")] filter: Option<String>,
        #[graphql(desc = "As in `scaling_group,-free_bytes`.")] order: Option<String>,
        scaling_group: Option<String>,
        #[graphql(desc = "`ALIVE` or `LOST`.")] status: Option<String>,
    ) -> FieldResult<Option<AgentList>> {
        let agents = matching(ctx, scaling_group.as_deref(), status.as_deref())?;
        let slice = Slice { limit, offset, filter, order };
        let found = move |meter: &Meter| {
            let rows = agents.iter().map(|agent| (agent.record.id.as_str(), agent));
            let (page, total_count) = slice.of::<Agent>(rows, meter)?;
            Ok((page.into_iter().cloned().collect::<Vec<_>>(), total_count))
        };
        let (page, total_count) = walk(ctx, found).await?;
        Ok(Some(AgentList { items: Some(rows(page)), total_count }))
    }

    /// The set of agents that a `target_agents` expression names now.
    async fn agent_set(&self, ctx: &Context<'_>, expression: String) -> FieldResult<AgentSetPreview> {
        let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
        Ok(match fleet.select(caller, &expression)? {
            Ok(set) => {
                let is_offline = |id: &&String| fleet.find(id).is_none_or(|agent| !agent.is_alive());
                AgentSetPreview {
                    ok: true,
                    count: i32::try_from(set.names.len()).unwrap_or(i32::MAX),
                    offline: set.names.iter().filter(is_offline).take(MAX_ROWS).cloned().collect(),
                    folded: Some(set.folded),
                    names: set.names.into_iter().take(MAX_ROWS).collect(),
                    error: None,
                }
            }
            Err(error) => AgentSetPreview {
                ok: false,
                folded: None,
                count: 0,
                offline: Vec::new(),
                names: Vec::new(),
                error: Some(AgentSetError {
                    code: error.code.to_string(),
                    position: i32::try_from(error.position).unwrap_or(i32::MAX),
                    caret: error.caret(&expression),
                    message: error.message,
                }),
            },
        })
    }

    /// The state of images on agents: one image on every agent, or every image of the catalog on one agent.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn image_presence(
        &self,
        ctx: &Context<'_>,
        reference: Option<String>,
        agent: Option<String>,
        #[graphql(desc = "Leave out so many.")] offset: Option<i32>,
        #[graphql(desc = "No more than so many; 10,000 at most.")] limit: Option<i32>,
    ) -> FieldResult<Vec<ImagePresence>> {
        let (offset, limit) = stretch(offset, limit, MAX_ROWS, MAX_ROWS)?;
        let rows = presence(ctx, reference.as_deref(), agent.as_deref())?;
        let mut page: Vec<_> = rows.into_iter().skip(offset).take(limit).collect();
        if ctx.look_ahead().field("usage").exists() {
            let fleet = ctx.data_unchecked::<Fleet>();
            for row in &mut page {
                row.usage = fleet.use_of(&row.agent, &row.reference).map(Into::into);
            }
        }
        Ok(page)
    }
}

fn matching(ctx: &Context<'_>, scaling_group: Option<&str>, status: Option<&str>) -> Result<Vec<Agent>> {
    let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
    let mut agents = fleet.agents(caller)?;
    agents.retain(|agent| {
        scaling_group.is_none_or(|wanted| wanted == agent.record.scaling_group)
            && status.is_none_or(|wanted| wanted.eq_ignore_ascii_case(agent.status.as_str()))
    });
    Ok(agents)
}

fn presence(ctx: &Context<'_>, reference: Option<&str>, agent: Option<&str>) -> Result<Vec<ImagePresence>> {
    let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
    let catalog = ctx.data_unchecked::<Catalog>();
    caller.require_superadmin("image_presence")?;
    let images = match reference {
        Some(reference) => catalog.architectures(caller, reference)?,
        None if agent.is_some() => catalog.images(caller, &visibility::ImageFilter::default())?,
        None => return Err(Error::invalid("reference", "give a reference, an agent, or both")),
    };
    if let Some(id) = agent.filter(|id| fleet.find(id).is_none()) {
        return Err(Error::missing("agent", shown(id)));
    }
    let mut rows = Vec::new();
    let of_one_name = |a: &Arc<Image>, b: &Arc<Image>| a.record.canonical() == b.record.canonical();
    for images in images.chunk_by(of_one_name) {
        let variants = variants(images);
        for image in images {
            let record = &image.record;
            let canonical = record.canonical().to_string();
            let sought = sought(record, &canonical, &variants);
            let row = |agent: String, state: Presence| ImagePresence {
                agent,
                reference: canonical.clone(),
                architecture: record.architecture.clone(),
                digest: record.digest.to_string(),
                state: state.as_str(),
                usage: None,
            };
            if let Some(id) = agent {
                rows.push(row(id.into(), fleet.presence(id, &sought)));
            } else {
                let standings = fleet.image_presence(caller, &sought)?;
                rows.extend(standings.into_iter().map(|standing| row(standing.agent, standing.presence)));
            }
        }
    }
    Ok(rows)
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct AgentMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl AgentMutation {
    /// Changes an agent's scaling group, its labels and whether it accepts new images.
    async fn modify_agent(
        &self,
        ctx: &Context<'_>,
        id: String,
        props: ModifyAgentInput,
    ) -> Option<ModifyAgent> {
        let (caller, fleet) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Fleet>());
        let labels =
            props.labels.map(|labels| labels.into_iter().map(|label| (label.key, label.value)).collect());
        let change = AgentChange {
            labels,
            scaling_group: props.scaling_group,
            draining: props.schedulable.map(|schedulable| !schedulable),
        };
        Some(fleet.change(caller, &id, change).await.map(drop).into())
    }
}
