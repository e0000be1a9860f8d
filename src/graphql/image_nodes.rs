//! Images as Backend.AI's later clients ask for them: in Relay's pages, and changed by their ids.

use std::sync::Arc;

use async_graphql::{Context, InputObject, Object, SimpleObject};

use crate::access::accounts::Accounts;
use crate::access::caller::Caller;
use crate::access::visibility;
use crate::base::Error;
use crate::base::reference::shown;
use crate::base::walk::Meter;
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::graphql::image_fields::{Audience, ImageNode, ImageRow, Seen, plain_id};
use crate::graphql::images::ImageStatus;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::filter::Filter;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::walk;
use crate::graphql::kit::order::Order;
use crate::graphql::kit::outcome::outcome;
use crate::graphql::kit::page::{self, Window};
use crate::graphql::kit::rows::{One, Rows};
use crate::graphql::kit::scalar::{GlobalIDField, ImagePermissionValueField, ScopeField};
use crate::scan::service::Scanner;

/// The permissions that Backend.AI has for images.
const PERMISSIONS: [&str; 4] = ["read_attribute", "update_attribute", "create_container", "forget_image"];

/// The position of a page in its list.
#[derive(SimpleObject)]
pub(crate) struct PageInfo {
    /// Whether rows follow after this page.
    has_next_page: bool,
    /// Whether rows come before this page.
    has_previous_page: bool,
    /// The cursor of its first row, for `before`.
    start_cursor: Option<String>,
    /// The cursor of its last row, for `after`.
    end_cursor: Option<String>,
}

/// A page of images.
#[derive(SimpleObject)]
pub(crate) struct ImageConnection {
    /// The position of the page in its list.
    page_info: PageInfo,
    /// Its rows.
    edges: Vec<Option<ImageEdge>>,
    /// The number of images on all pages together.
    count: Option<i32>,
}

/// An image in a page.
#[derive(SimpleObject)]
pub(crate) struct ImageEdge {
    /// The image.
    node: Option<One<ImageNode>>,
    /// With `one_per_name`, the images of the same name that the caller may see, by architecture, whether or not they
    /// pass the filter; otherwise the image alone.
    architectures: Rows<ImageNode>,
    /// Its position, for `after` and `before`. It stays valid when images are added or removed meanwhile.
    cursor: String,
}

/// The queries.
#[derive(Default)]
pub(crate) struct ImageNodeQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageNodeQuery {
    /// One image the caller may see, by its node id, its id or its name.
    async fn image_node(
        &self,
        ctx: &Context<'_>,
        id: GlobalIDField,
        #[graphql(desc = "Of Backend.AI's scopes; the caller's own if null.")] scope_id: Option<ScopeField>,
        #[graphql(desc = "Only if the caller may do this with it; `read_attribute` if null.")]
        permission: Option<ImagePermissionValueField>,
    ) -> FieldResult<Option<One<ImageNode>>> {
        let catalog = ctx.data_unchecked::<Catalog>();
        let (caller, _) = seen_from(ctx, scope_id)?;
        let audience = Audience::new(&caller, catalog);
        let image = catalog.image(&caller, &plain_id(&id.0), None)?;
        if !may(&audience, permission)? {
            return Err(Error::missing("image", shown(&id.0)).into());
        }
        Ok(Some(One(ImageNode(ImageRow::new(image, &audience)).into())))
    }

    /// A page of the images the caller may see. Without `first` and `last` it has 10.
    #[expect(clippy::too_many_arguments, reason = "Backend.AI's arguments, and those of `images`")]
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn image_nodes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "`system:`, `domain:NAME`, `project:ID` or `user:ID`; the caller's own if null.")]
        scope_id: Option<ScopeField>,
        #[graphql(desc = "Only if the caller may do this with them; `read_attribute` if null.")]
        permission: Option<ImagePermissionValueField>,
        #[graphql(desc = "Images not `ALIVE` are not kept.")] filter_by_statuses: Option<
            Vec<Option<ImageStatus>>,
        >,
        #[graphql(desc = "As in `name like \"%python%\" & (size_bytes < 5e9 | installed == true)`.")]
        filter: Option<String>,
        #[graphql(desc = "As in `name,-size_bytes`; by name if null.")] order: Option<String>,
        #[graphql(desc = "Leave out so many.")] offset: Option<i32>,
        before: Option<String>,
        after: Option<String>,
        #[graphql(desc = "10,000 at most.")] first: Option<i32>,
        #[graphql(desc = "10,000 at most.")] last: Option<i32>,
        #[graphql(desc = "As this domain sees them; super-admins only.")] domain: Option<String>,
        #[graphql(desc = "As a member of this group: an agent it may use must have them.")] group: Option<
            String,
        >,
        #[graphql(desc = "Only the agents of this scaling group count.")] scaling_group: Option<String>,
        #[graphql(desc = "Only those that an agent has, or that none has.")] is_installed: Option<bool>,
        #[graphql(desc = "One row for all architectures of a name: the first that passes the filter.")]
        one_per_name: Option<bool>,
    ) -> FieldResult<Option<ImageConnection>> {
        let catalog = ctx.data_unchecked::<Catalog>();
        let (caller, scope_domain) = seen_from(ctx, scope_id)?;
        let audience = Audience::new(&caller, catalog);
        let is_any = may(&audience, permission)?
            && filter_by_statuses.is_none_or(|statuses| statuses.contains(&Some(ImageStatus::Alive)));
        let seen = visibility::ImageFilter {
            is_installed,
            domain: domain.or(scope_domain),
            group,
            scaling_group,
            ..visibility::ImageFilter::default()
        };
        let (filter, order) = (Filter::parse(filter.as_deref())?, Order::parse(order.as_deref())?);
        let window = Window { offset, first, last, after, before };
        let is_grouped = one_per_name.unwrap_or_default();
        let no_filter = Filter::parse(None)?;
        let catalog = catalog.clone();
        let found = move |meter: &Meter| {
            let take = |images: &mut dyn Iterator<Item = (&str, &Arc<Image>)>, meter: &Meter| {
                let rows =
                    images.filter(|_| is_any).map(|(key, image)| (key, Seen { image, audience: &audience }));
                let page = if is_grouped {
                    let rows = firsts(rows, &filter, meter)?.into_iter();
                    page::page::<Image>(rows, &no_filter, &order, &window, meter)?
                } else {
                    page::page::<Image>(rows, &filter, &order, &window, meter)?
                };
                // Kept after the walk: only the page's images, not the list they were taken from.
                let owned = |(seen, cursor): (Seen<'_>, String)| (Arc::clone(seen.image), cursor);
                let edges: Vec<_> = page.rows.into_iter().map(owned).collect();
                Ok::<_, Error>((edges, page.count, page.has_previous, page.has_next))
            };
            // Nothing can be written while the walk holds the catalog itself; a long walk works on a copy.
            let (briefly, budget) = meter.briefly();
            let mut page = catalog.survey(&caller, &seen, |images| take(images, &briefly))?;
            if page.is_err() && budget.is_spent() {
                let copies = catalog.survey_copies(&caller, &seen)?;
                page = take(&mut copies.iter().map(|(key, image)| (&**key, image)), meter);
            }
            let (images, count, has_previous, has_next) = page?;
            let variants: Vec<Vec<Arc<Image>>> = if is_grouped {
                let names = images.iter().map(|(image, _)| image.record.canonical());
                catalog.architectures_of(&caller, &seen, names)?
            } else {
                images.iter().map(|(image, _)| vec![Arc::clone(image)]).collect()
            };
            let node = |image| ImageNode(ImageRow::new(image, &audience));
            let edge = |((image, cursor), variants): ((_, String), Vec<_>)| ImageEdge {
                node: Some(One(node(image).into())),
                architectures: Rows(variants.into_iter().map(node).collect()),
                cursor,
            };
            let edges: Vec<ImageEdge> = images.into_iter().zip(variants).map(edge).collect();
            Ok((edges, count, has_previous, has_next))
        };
        let (edges, count, has_previous_page, has_next_page) = walk(ctx, found).await?;
        let page_info = PageInfo {
            has_next_page,
            has_previous_page,
            start_cursor: edges.first().map(|edge| edge.cursor.clone()),
            end_cursor: edges.last().map(|edge| edge.cursor.clone()),
        };
        let edges = edges.into_iter().map(Some).collect();
        Ok(Some(ImageConnection { page_info, edges, count: i32::try_from(count).ok() }))
    }

    /// The images that the caller customized; for super-admins, the customized images of all users.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn customized_images(&self, ctx: &Context<'_>) -> FieldResult<Option<Rows<ImageNode>>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let audience = Audience::new(caller, catalog);
        let images = catalog.images(caller, &visibility::ImageFilter::default())?;
        let own = images.iter().filter(|image| Seen { image, audience: &audience }.is_customized());
        let rows = own.map(|image| ImageNode(ImageRow::new(image.clone(), &audience)));
        Ok(Some(Rows(rows.collect())))
    }
}

/// The first image of each name that passes a filter, of images that come by name.
///
/// # Errors
/// Those of [`Meter::go_on`].
fn firsts<'a>(
    rows: impl Iterator<Item = (&'a str, Seen<'a>)>,
    filter: &Filter<Image>,
    meter: &Meter,
) -> Result<Vec<(&'a str, Seen<'a>)>, Error> {
    let name = |seen: &Seen<'a>| {
        let record = &seen.image.record;
        (record.registry.as_str(), record.name.as_str(), record.tag.as_str())
    };
    let mut firsts: Vec<(&str, Seen)> = Vec::new();
    for (key, seen) in rows {
        meter.go_on()?;
        let is_same = firsts.last().is_some_and(|(_, last)| name(last) == name(&seen));
        if !is_same && filter.holds(seen, meter) {
            firsts.push((key, seen));
        }
    }
    Ok(firsts)
}

/// Returns the caller whose view a scope means, and for super-admins the domain they look from.
fn seen_from(ctx: &Context<'_>, scope: Option<ScopeField>) -> Result<(Caller, Option<String>), Error> {
    let (caller, accounts) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Accounts>());
    let own = (caller.clone(), None);
    let scope = scope.map(|scope| scope.0).unwrap_or_default();
    let scope = scope.trim();
    let refuse = |why: String| Err(Error::invalid("scope_id", why));
    let (kind, id) = scope.split_once(':').unwrap_or((scope, ""));
    match (kind, id) {
        ("", "") | ("system", _) => Ok(own),
        ("domain", id) if id == caller.domain && !caller.is_superadmin() => Ok(own),
        ("domain", id) => Ok((caller.clone(), Some(id.into()))),
        ("user", id) if id == caller.user.to_string() => Ok(own),
        ("user", _) if !caller.is_superadmin() => Err(Error::Denied("image_nodes for another user".into())),
        ("user", id) => Ok((accounts.caller_of(id)?, None)),
        ("project", id) => {
            let domain = ctx.data_unchecked::<Catalog>().domain_of_group(caller, id)?;
            Ok((caller.clone(), Some(domain).filter(|_| caller.is_superadmin())))
        }
        _ => refuse(format!("{:?} is none of system:, domain:NAME, project:ID, user:ID", shown(scope))),
    }
}

fn may(audience: &Audience, permission: Option<ImagePermissionValueField>) -> Result<bool, Error> {
    let Some(ImagePermissionValueField(permission)) = permission else { return Ok(true) };
    if !PERMISSIONS.contains(&permission.as_str()) {
        let why = format!("{:?} is none of {}", shown(&permission), PERMISSIONS.join(", "));
        return Err(Error::invalid("permission", why));
    }
    Ok(audience.may(&permission))
}

outcome!(
    /// The result of `forget_image_by_id`.
    ForgetImageById,
    /// The image before the change.
    image: One<ImageNode>
);
outcome!(
    /// The result of `untag_image_from_registry`.
    UntagImageFromRegistry,
    /// The image before the change.
    image: One<ImageNode>
);

/// The result of `purge_image_by_id`.
#[derive(SimpleObject)]
pub(crate) struct PurgeImageById {
    /// The image before the change.
    image: Option<One<ImageNode>>,
}

/// Options for purging an image.
#[derive(InputObject, Default)]
#[graphql(rename_fields = "snake_case")]
pub(crate) struct PurgeImageOptions {
    /// Also delete the image's tag in the registry.
    #[graphql(default)]
    remove_from_registry: bool,
}

/// The mutations. All are for super-admins.
#[derive(Default)]
pub(crate) struct ImageNodeMutation;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ImageNodeMutation {
    /// Removes one image and its aliases from the catalog; the registry keeps the image.
    async fn forget_image_by_id(&self, ctx: &Context<'_>, image_id: String) -> Option<ForgetImageById> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let audience = Audience::new(caller, catalog);
        let forgotten = catalog.forget_by_id(caller, &plain_id(&image_id)).await;
        Some(forgotten.map(|image| One(ImageNode(ImageRow::new(image, &audience)).into())).into())
    }

    /// Removes one image from the catalog; if asked, first deletes its tag in the registry.
    async fn purge_image_by_id(
        &self,
        ctx: &Context<'_>,
        image_id: String,
        options: Option<PurgeImageOptions>,
    ) -> FieldResult<Option<PurgeImageById>> {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        let audience = Audience::new(caller, ctx.data_unchecked::<Catalog>());
        let from_registry = options.unwrap_or_default().remove_from_registry;
        let image = scanner.purge(caller, &plain_id(&image_id), from_registry).await?;
        Ok(Some(PurgeImageById { image: Some(One(ImageNode(ImageRow::new(image, &audience)).into())) }))
    }

    /// Deletes an image's tag in its registry, if the registry can do that without touching other tags.
    async fn untag_image_from_registry(
        &self,
        ctx: &Context<'_>,
        image_id: String,
    ) -> Option<UntagImageFromRegistry> {
        let (caller, scanner) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Scanner>());
        let audience = Audience::new(caller, ctx.data_unchecked::<Catalog>());
        let untagged = scanner.untag(caller, &plain_id(&image_id)).await;
        Some(untagged.map(|image| One(ImageNode(ImageRow::new(image, &audience)).into())).into())
    }
}
