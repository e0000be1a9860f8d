//! `/v2/images`: search, forget, and why an image can't be changed by hand.

use std::sync::Arc;

use poem::web::Data;
use poem::{Request, Response, handler};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::access::caller::Caller;
use crate::access::visibility;
use crate::base::ids::ImageId;
use crate::base::walk::{Budget, Meter, Walks};
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::catalog::service::Catalog;
use crate::http::caller::Proved;
use crate::http::finish;
use crate::http::json::{Sent, answer};
use crate::http::problem::Problem;
use crate::http::v2::filter::{Nested as _, sift};
use crate::http::v2::image::{Field, ImageSearchFilter, Node, size_of_text};
use crate::http::v2::page::{self, OrderBy, Page};

/// A search for images.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    filter: Option<ImageSearchFilter>,
    order: Option<Vec<OrderBy<Field>>>,
    limit: Option<i64>,
    offset: Option<i64>,
}

/// `POST /v2/images/search`: lists images.
#[handler]
pub(crate) async fn search(
    request: &Request,
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Data(walks): Data<&Walks>,
    Sent(search): Sent<Search>,
) -> Result<Response, Problem> {
    caller.require_superadmin("search_images")?;
    let page = Page::new(search.limit, search.offset)?;
    search.filter.as_ref().map_or(Ok(()), ImageSearchFilter::check)?;
    let (user, catalog) = (caller.user, catalog.clone());
    let found = move |meter: &Meter| {
        let images = catalog.images(&caller, &visibility::ImageFilter::default())?;
        let filter = search.filter.as_ref();
        let mut images = sift(images, filter, meter, size_of_text, |filter, image| filter.takes(image))?;
        page::sort(&mut images, search.order.as_deref(), |field, a, b| field.compare(a, b))?;
        Ok(page.of(images, |image| Node::from(image.as_ref())))
    };
    answer(&walks.run(user, &Budget::new(finish::abandoned(request)), found).await?)
}

/// Selects one image.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct One {
    image_id: ImageId,
}

/// `POST /v2/images/forget` and `/v2/images/purge`: both do the same, because nothing is kept of a forgotten image.
#[handler]
pub(crate) async fn forget(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(one): Sent<One>,
) -> Result<Response, Problem> {
    let image = catalog.forget_by_id(&caller, &one.image_id.to_string()).await?;
    answer(&json!({ "item": Node::from(image.as_ref()) }))
}

/// An image and the values it should have.
#[derive(Deserialize)]
pub(crate) struct Change {
    image_id: ImageId,
    #[serde(flatten)]
    properties: Map<String, Value>,
}

/// `PATCH /v2/images`: the registry alone decides what an image is, so the request succeeds only if its values are so
/// already.
#[handler]
pub(crate) fn update(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(change): Sent<Change>,
) -> Result<Response, Problem> {
    caller.require_superadmin("modify_image")?;
    let image = find(catalog, &caller, change.image_id)?;
    let node = serde_json::to_value(Node::from(image.as_ref())).map_err(Error::internal)?;
    for (name, wanted) in &change.properties {
        if node.get(name) != Some(wanted) {
            let why =
                "an image is what its registry says, and can't be changed here; push it anew and rescan";
            return Err(Problem::bad_parameter(format!("{name}: {why}")));
        }
    }
    answer(&json!({ "item": node }))
}

fn find(catalog: &Catalog, caller: &Caller, id: ImageId) -> Result<Arc<Image>> {
    catalog.image(caller, &id.to_string(), None)
}
