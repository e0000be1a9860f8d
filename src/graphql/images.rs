//! Images: the seed's type, its two queries and six mutations, with the arguments later clients send.

use std::sync::{Arc, LazyLock};

use async_graphql::{Context, Enum, Object, SimpleObject};

use crate::access::caller::Caller;
use crate::access::visibility::{Filter, Whereabouts};
use crate::base::Error;
use crate::base::ids::TaskId;
use crate::catalog::describe::ResourceLimit;
use crate::catalog::image::Image;
use crate::catalog::service::{Catalog, Sighting};
use crate::graphql::kit::fault::{Answer, Fault};
use crate::graphql::kit::rows::{self, Column, Nested, One, Plan, Row, Rows};
use crate::graphql::kit::scalar::BigInt;
use crate::graphql::schema::LIST_COST;
use crate::scan::service::{Rescan, Scanner};
use crate::transfer::service::Transfers;

/// An image as one caller sees it.
pub struct ImageRow {
    sighting: Sighting,
    /// For super-admins only.
    whereabouts: Option<Arc<dyn Whereabouts>>,
}

impl ImageRow {
    fn new(caller: &Caller, catalog: &Catalog, sighting: Sighting) -> Self {
        let whereabouts = caller.is_superadmin().then(|| Arc::clone(catalog.whereabouts()));
        Self { sighting, whereabouts }
    }

    fn image(&self) -> &Image {
        &self.sighting.image
    }
}

impl Row for ImageRow {
    const NAME: &'static str = "Image";
    const DOC: &'static str = "One registry, name, tag and architecture.";
    type View<'a> = &'a Self;

    fn columns() -> &'static [Column<Self>] {
        static COLUMNS: LazyLock<Vec<Column<ImageRow>>> = LazyLock::new(image_columns);
        &COLUMNS
    }
}

/// A text of the image.
fn text(
    name: &'static str,
    doc: &'static str,
    write: fn(&ImageRow, &Plan, &mut Vec<u8>),
) -> Column<ImageRow> {
    column(name, "String", doc, write)
}

fn column(
    name: &'static str,
    ty: &'static str,
    doc: &'static str,
    write: fn(&ImageRow, &Plan, &mut Vec<u8>),
) -> Column<ImageRow> {
    Column { name, ty, doc, nested: None, write }
}

fn image_columns() -> Vec<Column<ImageRow>> {
    vec![
        column("id", "String", "The same for one name and architecture, always: a UUID.", |row, _, out| {
            rows::plain(&row.image().id, out);
        }),
        text("name", "The repository, without the registry.", |row, _, out| {
            rows::text(&row.image().record.name, out);
        }),
        text("namespace", "The same as `name`, which later clients ask for.", |row, _, out| {
            rows::text(&row.image().record.name, out);
        }),
        text("humanized_name", "A name for people: `Python 3.9, Ubuntu 20.04`.", |row, _, out| {
            rows::text(&row.image().humanized_name, out);
        }),
        text("tag", "The tag.", |row, _, out| rows::text(&row.image().record.tag, out)),
        text("registry", "The registry's host, with its port if it has one.", |row, _, out| {
            rows::text(&row.image().record.registry, out);
        }),
        text(
            "project",
            "The first part of the repository's name, if it has several.",
            |row, _, out| match row.image().record.name.split_once('/') {
                Some((project, _)) => rows::text(project, out),
                None => rows::null(out),
            },
        ),
        text("architecture", "As `uname -m` has it: `x86_64`, `aarch64`.", |row, _, out| {
            rows::text(&row.image().record.architecture, out);
        }),
        text("digest", "The digest of the config: what Docker calls the image ID.", |row, _, out| {
            rows::plain(&row.image().record.digest, out);
        }),
        text("hash", "The same as `digest`, under its oldest name.", |row, _, out| {
            rows::plain(&row.image().record.digest, out);
        }),
        text("manifest_digest", "The digest of this architecture's manifest.", |row, _, out| {
            rows::plain(&row.image().record.manifest, out);
        }),
        text(
            "target_digest",
            "What the tag points at: the manifest, or the index that it is in.",
            |row, _, out| {
                rows::plain(&row.image().record.target, out);
            },
        ),
        Column {
            name: "labels",
            ty: "[KVPair]",
            doc: "The labels of the config, by key.",
            nested: Some(Nested::of::<Label>()),
            write: |row, plan, out| plan.write_all::<Label>(row.image().config.record.labels.iter(), out),
        },
        column("aliases", "[String]", "Its other names.", |row, _, out| {
            rows::texts(&row.image().aliases, out);
        }),
        column(
            "size_bytes",
            "BigInt",
            "Layers and config, compressed as they lie in the registry.",
            |row, _, out| {
                rows::number(BigInt(row.image().record.size_bytes).written(), out);
            },
        ),
        text("status", "`ALIVE`; Backend.AI's clients ask for it.", |_, _, out| rows::text("ALIVE", out)),
        column("is_local", "Boolean", "Whether it is in no registry; always false.", |_, _, out| {
            rows::boolean(false, out);
        }),
        Column {
            name: "resource_limits",
            ty: "[ResourceLimit]",
            doc: "What a container of it needs at least and may have at most, by resource slot.",
            nested: Some(Nested::of::<Limit>()),
            write: |row, plan, out| plan.write_all::<Limit>(row.image().config.resource_limits.iter(), out),
        },
        column(
            "supported_accelerators",
            "[String]",
            "The accelerators it runs with; `*` for any.",
            |row, _, out| {
                rows::texts(&row.image().config.accelerators, out);
            },
        ),
        column("installed", "Boolean", "Whether an agent has it.", |row, _, out| {
            rows::boolean(row.sighting.is_installed, out);
        }),
        column(
            "installed_agents",
            "[String]",
            "The agents that have it; null but for super-admins.",
            |row, _, out| match &row.whereabouts {
                Some(whereabouts) => rows::texts(whereabouts.agents(&row.image().record.digest), out),
                None => rows::null(out),
            },
        ),
        text("created_at", "When it was made, as its config says.", |row, _, out| {
            match &row.image().config.record.created {
                Some(created) => rows::text(created, out),
                None => rows::null(out),
            }
        }),
    ]
}

/// A label of an image.
struct Label;

impl Row for Label {
    const NAME: &'static str = "KVPair";
    const DOC: &'static str = "A key and its value.";
    type View<'a> = (&'a str, &'a str);

    fn columns() -> &'static [Column<Self>] {
        &[
            Column {
                name: "key",
                ty: "String",
                doc: "The key.",
                nested: None,
                write: |pair, _, out| rows::text(pair.0, out),
            },
            Column {
                name: "value",
                ty: "String",
                doc: "The value.",
                nested: None,
                write: |pair, _, out| rows::text(pair.1, out),
            },
        ]
    }
}

/// A resource limit of an image.
struct Limit;

impl Row for Limit {
    const NAME: &'static str = "ResourceLimit";
    const DOC: &'static str = "What a container needs, and may have, of one resource slot.";
    type View<'a> = &'a ResourceLimit;

    fn columns() -> &'static [Column<Self>] {
        &[
            Column {
                name: "key",
                ty: "String",
                doc: "The slot: `cpu`, `mem`, `cuda.device`.",
                nested: None,
                write: |limit, _, out| rows::text(&limit.key, out),
            },
            Column {
                name: "min",
                ty: "String",
                doc: "The least; `0` if the image does not say.",
                nested: None,
                write: |limit, _, out| rows::text(&limit.min, out),
            },
            Column {
                name: "max",
                ty: "String",
                doc: "The most; `Infinity` if the image does not say.",
                nested: None,
                write: |limit, _, out| rows::text(&limit.max, out),
            },
        ]
    }
}

/// Whether an image is in use or was taken away (Backend.AI 25.4).
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub enum ImageStatus {
    /// In the catalog.
    Alive,
    /// Taken out; wharf keeps none of these.
    Deleted,
}

/// The queries.
#[derive(Default)]
pub struct ImageQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageQuery {
    /// One image the caller may see: by `reference` (canonical name, alias, digest) or by `id`.
    async fn image(
        &self,
        ctx: &Context<'_>,
        reference: Option<String>,
        id: Option<String>,
        architecture: Option<String>,
    ) -> Answer<Option<One<ImageRow>>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let Some(wanted) = reference.or(id) else {
            return Err(Error::invalid("reference", "give a reference or an id").into());
        };
        let sighting = catalog.image(caller, &wanted, architecture.as_deref())?;
        Ok(Some(One(ImageRow::new(caller, catalog, sighting).into())))
    }

    /// The images the caller may see, by name. Super-admins who set no filter get every image.
    #[expect(clippy::too_many_arguments, reason = "the seed's arguments, and those of later clients")]
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn images(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Only those that an agent has, or that none has.")] is_installed: Option<bool>,
        #[graphql(desc = "Only operation images, or none of them.")] is_operation: Option<bool>,
        #[graphql(desc = "As this domain sees them; super-admins only.")] domain: Option<String>,
        #[graphql(desc = "As a member of this group: an agent it may use must have them.")] group: Option<
            String,
        >,
        #[graphql(desc = "Only the agents of this scaling group count.")] scaling_group: Option<String>,
        #[graphql(desc = "Images not `ALIVE` are not kept.")] filter_by_statuses: Option<
            Vec<Option<ImageStatus>>,
        >,
        #[graphql(desc = "Any of `general`, `operational`, `customized`.")] load_filters: Option<
            Vec<Option<String>>,
        >,
    ) -> Answer<Option<Rows<ImageRow>>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let is_operation = match load_filters {
            None => is_operation,
            Some(filters) => operation_of(&filters)?,
        };
        let filter = Filter { is_installed, is_operation, domain, group, scaling_group };
        let sightings = catalog.images(caller, &filter)?;
        let alive = filter_by_statuses.is_none_or(|statuses| statuses.contains(&Some(ImageStatus::Alive)));
        let shown = if alive { sightings } else { Vec::new() };
        Ok(Some(Rows(shown.into_iter().map(|sighting| ImageRow::new(caller, catalog, sighting)).collect())))
    }
}

/// What Backend.AI's `load_filters` say of operation images: wanted, unwanted, or both kinds.
fn operation_of(filters: &[Option<String>]) -> Result<Option<bool>, Error> {
    let (mut general, mut operational) = (false, false);
    for filter in filters.iter().flatten() {
        match filter.as_str() {
            "general" | "customized" => general = true,
            "operational" => operational = true,
            other => {
                let why = format!("{other:?} is none of general, operational, customized");
                return Err(Error::invalid("load_filters", why));
            }
        }
    }
    Ok(if general == operational { None } else { Some(operational) })
}

macro_rules! outcome {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        pub struct $name {
            /// Whether it was done, or accepted.
            ok: Option<bool>,
            /// Why not, or what came of it.
            msg: Option<String>,
        }

        impl From<Result<String, Error>> for $name {
            fn from(result: Result<String, Error>) -> Self {
                match result {
                    Ok(msg) => Self { ok: Some(true), msg: Some(msg) },
                    Err(error) => Self { ok: Some(false), msg: Some(Fault::from(error).message()) },
                }
            }
        }
    };
}

macro_rules! started {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(SimpleObject)]
        #[graphql(rename_fields = "snake_case")]
        pub struct $name {
            /// Whether the task was accepted; it goes on by itself.
            ok: Option<bool>,
            /// Why not, or what is going on.
            msg: Option<String>,
            /// The background task to follow.
            task_id: Option<String>,
        }

        impl From<Result<TaskId, Error>> for $name {
            fn from(result: Result<TaskId, Error>) -> Self {
                match result {
                    Ok(id) => Self { ok: Some(true), msg: Some("started".into()), task_id: Some(id.to_string()) },
                    Err(error) => Self { ok: Some(false), msg: Some(Fault::from(error).message()), task_id: None },
                }
            }
        }
    };
}

started!(
    /// What came of `rescan_images`.
    RescanImages
);
started!(
    /// What came of `scan_image`.
    ScanImage
);
started!(
    /// What came of `preload_image`.
    PreloadImage
);
started!(
    /// What came of `unload_image`.
    UnloadImage
);
outcome!(
    /// What came of `forget_image`.
    ForgetImage
);
outcome!(
    /// What came of `alias_image`.
    AliasImage
);
outcome!(
    /// What came of `dealias_image`.
    DealiasImage
);

/// The mutations. All are for super-admins.
#[derive(Default)]
pub struct ImageMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageMutation {
    /// Reads a registry, or all of them, into the catalog, in a background task.
    async fn rescan_images(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The registry's host; null for every registry.")] registry: Option<String>,
        #[graphql(desc = "Only repositories of this project.")] project: Option<String>,
        #[graphql(desc = "Remove vanished images even if they are most of the registry's.")] confirm_removals: Option<bool>,
    ) -> Option<RescanImages> {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        let wanted = Rescan { registry, project, confirm_removals: confirm_removals.unwrap_or_default() };
        Some(scanner.rescan(caller, wanted).await.into())
    }

    /// Reads one image from its registry, in a background task: for registries that do not list their repositories.
    async fn scan_image(&self, ctx: &Context<'_>, reference: String) -> Option<ScanImage> {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        Some(scanner.scan_image(caller, &reference).await.into())
    }

    /// Loads an image onto agents, in a background task.
    async fn preload_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
    ) -> Option<PreloadImage> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        Some(transfers.preload(caller, &reference, &target_agents).await.into())
    }

    /// Takes an image off agents, in a background task.
    async fn unload_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
    ) -> Option<UnloadImage> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        Some(transfers.unload(caller, &reference, &target_agents).await.into())
    }

    /// Takes an image out of the catalog, and its aliases; a rescan brings it back if the registry has it.
    async fn forget_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        #[graphql(desc = "Only this architecture; all of them if null.")] architecture: Option<String>,
    ) -> Option<ForgetImage> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let forgotten = catalog.forget(caller, &reference, architecture.as_deref()).await;
        let said = |count| if count == 1 { "forgotten".into() } else { format!("{count} images forgotten") };
        Some(forgotten.map(said).into())
    }

    /// Gives an image another name.
    async fn alias_image(
        &self,
        ctx: &Context<'_>,
        alias: String,
        target: String,
        #[graphql(desc = "Which of the target's architectures.")] architecture: Option<String>,
    ) -> Option<AliasImage> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let done = catalog.alias(caller, &alias, &target, architecture.as_deref()).await;
        Some(done.map(|()| "done".into()).into())
    }

    /// Takes another name of an image away.
    async fn dealias_image(&self, ctx: &Context<'_>, alias: String) -> Option<DealiasImage> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Some(catalog.dealias(caller, &alias).await.map(|()| "done".into()).into())
    }
}
