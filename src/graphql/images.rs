//! Images: the seed's type, two queries and six mutations, with the arguments that later clients send.

use async_graphql::{Context, Enum, Object};

use crate::access::caller::Caller;
use crate::access::visibility::{ImageFilter, Kinds};
use crate::base::Error;
use crate::base::ids::{ImageId, TaskId};
use crate::catalog::service::Catalog;
use crate::graphql::image_fields::{Audience, ImageRow, plain_id};
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::walk;
use crate::graphql::kit::outcome::{Done, outcome};
use crate::graphql::kit::rows::{One, Rows};
use crate::graphql::transfers::order;
use crate::scan::service::{Rescan, Scanner};
use crate::transfer::service::{Order, Transfers};

/// Whether an image is in use or was removed (Backend.AI 25.4).
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageStatus {
    /// In the catalog.
    Alive,
    /// Removed. wharf keeps no removed images.
    Deleted,
}

/// The queries.
#[derive(Default)]
pub(crate) struct ImageQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageQuery {
    /// One image the caller may see: by `reference` (canonical name, alias, digest) or by `id`.
    async fn image(
        &self,
        ctx: &Context<'_>,
        reference: Option<String>,
        id: Option<String>,
        architecture: Option<String>,
    ) -> FieldResult<Option<One<ImageRow>>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let wanted = match (reference, id.as_deref().map(plain_id)) {
            (Some(reference), _) => reference,
            // Clients that get an image for a name here use the name as an id from then on, and forget the
            // architecture they were told. If this is refused, they ask again by reference and architecture.
            (None, Some(id)) if id.parse::<ImageId>().is_err() => {
                return Err(Error::invalid("id", "it is no image's id; give a name as reference").into());
            }
            (None, Some(id)) => id,
            (None, None) => return Err(Error::invalid("reference", "give a reference or an id").into()),
        };
        let image = catalog.image(caller, &wanted, architecture.as_deref())?;
        Ok(Some(One(ImageRow::new(image, &Audience::new(caller, catalog)).into())))
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
    ) -> FieldResult<Option<Rows<ImageRow>>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let kinds = load_filters.as_deref().map(kinds_of).transpose()?.flatten();
        let is_operation = is_operation.filter(|_| kinds.is_none());
        let filter = ImageFilter { is_installed, is_operation, kinds, domain, group, scaling_group };
        let alive = filter_by_statuses.is_none_or(|statuses| statuses.contains(&Some(ImageStatus::Alive)));
        let (caller, catalog) = (caller.clone(), catalog.clone());
        let shown = walk(ctx, move |_| {
            let images = catalog.images(&caller, &filter)?;
            let shown = if alive { images } else { Vec::new() };
            let audience = Audience::new(&caller, &catalog);
            Ok(shown.into_iter().map(|image| ImageRow::new(image, &audience)).collect())
        });
        Ok(Some(Rows(shown.await?)))
    }
}

/// Returns the kinds that Backend.AI's `load_filters` name, or all kinds if none is named.
fn kinds_of(filters: &[Option<String>]) -> Result<Option<Kinds>, Error> {
    let mut kinds = Kinds::default();
    for filter in filters.iter().flatten() {
        match filter.as_str() {
            "general" => kinds.general = true,
            "operational" => kinds.operational = true,
            "customized" => kinds.customized = true,
            other => {
                let why = format!("{other:?} is none of general, operational, customized");
                return Err(Error::invalid("load_filters", why));
            }
        }
    }
    Ok(Some(kinds).filter(|kinds| *kinds != Kinds::default()))
}

outcome!(
    /// The result of `rescan_images`.
    RescanImages,
    /// The id of the background task; the task runs whether or not it is followed.
    task_id: String
);
outcome!(
    /// The result of `scan_image`.
    ScanImage,
    /// The id of the background task; the task runs whether or not it is followed.
    task_id: String
);
outcome!(
    /// The result of `preload_image`.
    PreloadImage,
    /// The id of the background task; the task runs whether or not it is followed.
    task_id: String
);
outcome!(
    /// The result of `unload_image`.
    UnloadImage,
    /// The id of the background task; the task runs whether or not it is followed.
    task_id: String
);
outcome!(
    /// The result of `forget_image`.
    ForgetImage
);
outcome!(
    /// The result of `alias_image`.
    AliasImage
);
outcome!(
    /// The result of `dealias_image`.
    DealiasImage
);

/// Returns the answer for an accepted task: its id.
fn started(task: TaskId) -> Done<String> {
    Done { msg: "started".into(), now: task.to_string() }
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct ImageMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageMutation {
    /// Reads one registry, or all of them, into the catalog, in a background task.
    async fn rescan_images(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The registry's host; null for every registry.")] registry: Option<String>,
        #[graphql(desc = "Only repositories of this project.")] project: Option<String>,
        #[graphql(desc = "Remove vanished images even if they are most of the registry's.")] confirm_removals: Option<bool>,
    ) -> Option<RescanImages> {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        let wanted = Rescan { registry, project, confirm_removals: confirm_removals.unwrap_or_default() };
        Some(scanner.rescan(caller, wanted).await.map(started).into())
    }

    /// Reads one image from its registry, in a background task: for registries that do not list their repositories.
    async fn scan_image(&self, ctx: &Context<'_>, reference: String) -> Option<ScanImage> {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        Some(scanner.scan_image(caller, &reference).await.map(started).into())
    }

    /// Loads images onto agents, in one background task.
    async fn preload_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
        #[graphql(desc = "More images, in the same task.")] references: Option<Vec<Option<String>>>,
        #[graphql(desc = "Only this architecture, and no agent of another; each agent's own if null.")]
        architecture: Option<String>,
        #[graphql(
            desc = "Where an image does not fit, let others go first, those unused longest and no more than needed: \
                    see `room` of the plan."
        )]
        make_room: Option<bool>,
    ) -> Option<PreloadImage> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        let order = Order {
            make_room: make_room.unwrap_or_default(),
            ..order(reference, target_agents, references, architecture)
        };
        Some(transfers.preload(caller, &order).await.map(started).into())
    }

    /// Removes images from agents, in one background task. One that the catalog does not know is named by its full name
    /// or by its digest, as `unknown_images` lists them.
    async fn unload_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        target_agents: String,
        #[graphql(desc = "More images, in the same task.")] references: Option<Vec<Option<String>>>,
        #[graphql(desc = "Only this architecture, and no agent of another; each agent's own if null.")]
        architecture: Option<String>,
    ) -> Option<UnloadImage> {
        let (caller, transfers) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Transfers>());
        let order = order(reference, target_agents, references, architecture);
        Some(transfers.unload(caller, &order).await.map(started).into())
    }

    /// Removes an image and its aliases from the catalog. A rescan brings it back if the registry still has it.
    async fn forget_image(
        &self,
        ctx: &Context<'_>,
        reference: String,
        #[graphql(desc = "Only this architecture; all of them if null.")] architecture: Option<String>,
    ) -> Option<ForgetImage> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let forgotten = catalog.forget(caller, &reference, architecture.as_deref()).await;
        let said = |count| match count {
            1 => Done::saying("forgotten"),
            _ => Done::saying(format!("{count} images forgotten")),
        };
        Some(forgotten.map(said).into())
    }

    /// Gives an image an alias.
    async fn alias_image(
        &self,
        ctx: &Context<'_>,
        alias: String,
        target: String,
        #[graphql(desc = "Which of the target's architectures.")] architecture: Option<String>,
    ) -> Option<AliasImage> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Some(catalog.alias(caller, &alias, &target, architecture.as_deref()).await.into())
    }

    /// Removes an alias of an image.
    async fn dealias_image(&self, ctx: &Context<'_>, alias: String) -> Option<DealiasImage> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        Some(catalog.dealias(caller, &alias).await.into())
    }
}
