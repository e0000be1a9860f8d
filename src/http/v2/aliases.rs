//! `/v2/images/alias`, `/dealias` and `/aliases/search`.

use poem::web::Data;
use poem::{Request, Response, handler};
use serde::{Deserialize, Serialize};

use crate::access::visibility;
use crate::base::Error;
use crate::base::ids::{AliasId, ImageId};
use crate::base::reference::shown;
use crate::base::walk::{Budget, Meter, Walks};
use crate::catalog::service::Catalog;
use crate::http::caller::Proved;
use crate::http::finish;
use crate::http::json::{Sent, answer};
use crate::http::problem::Problem;
use crate::http::v2::filter::{ChoiceFilter, Nested, TextFilter, holds, sift};
use crate::http::v2::page::{self, OrderBy, Page};

/// An alias in a list.
#[derive(Debug, Serialize)]
struct Node {
    id: AliasId,
    field_id: AliasId,
    alias: String,
    #[serde(skip)]
    image: ImageId,
}

/// Selects aliases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AliasFilter {
    alias: Option<TextFilter>,
    image_id: Option<ChoiceFilter<ImageId>>,
    field_id: Option<ChoiceFilter<AliasId>>,
    #[serde(rename = "AND")]
    all: Option<Vec<Self>>,
    #[serde(rename = "OR")]
    any: Option<Vec<Self>>,
    #[serde(rename = "NOT")]
    none: Option<Vec<Self>>,
}

impl Nested for AliasFilter {
    fn inner(&self) -> [Option<&Vec<Self>>; 3] {
        [self.all.as_ref(), self.any.as_ref(), self.none.as_ref()]
    }
}

impl AliasFilter {
    fn takes(&self, node: &Node) -> bool {
        holds(self.alias.as_ref(), |filter| filter.takes(&node.alias))
            && holds(self.image_id.as_ref(), |filter| filter.takes(&node.image))
            && holds(self.field_id.as_ref(), |filter| filter.takes(&node.id))
            && self.inner_take(|inner| inner.takes(node))
    }
}

/// The fields that aliases are ordered by.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Field {
    Alias,
    FieldId,
}

/// A search for aliases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    filter: Option<AliasFilter>,
    order: Option<Vec<OrderBy<Field>>>,
    limit: Option<i64>,
    offset: Option<i64>,
}

/// The bytes that a filter looks at in an alias: its text and two ids.
const SIZE: usize = 128;

/// `POST /v2/images/aliases/search`: lists aliases.
#[handler]
pub(crate) async fn search(
    request: &Request,
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Data(walks): Data<&Walks>,
    Sent(search): Sent<Search>,
) -> Result<Response, Problem> {
    caller.require_superadmin("search_image_aliases")?;
    let page = Page::new(search.limit, search.offset)?;
    search.filter.as_ref().map_or(Ok(()), AliasFilter::check)?;
    let (user, catalog) = (caller.user, catalog.clone());
    let found = move |meter: &Meter| {
        let mut nodes = Vec::new();
        for image in catalog.images(&caller, &visibility::ImageFilter::default())? {
            for alias in &image.aliases {
                let id = AliasId::of(alias);
                nodes.push(Node { id, field_id: id, alias: alias.to_string(), image: image.id });
            }
        }
        let filter = search.filter.as_ref();
        let mut nodes = sift(nodes, filter, meter, |_| SIZE, AliasFilter::takes)?;
        nodes.sort_by(|a, b| a.alias.cmp(&b.alias));
        page::sort(&mut nodes, search.order.as_deref(), |field, a, b| match field {
            Field::Alias => a.alias.cmp(&b.alias),
            Field::FieldId => a.id.cmp(&b.id),
        })?;
        Ok(page.of(nodes, |node| node))
    };
    answer(&walks.run(user, &Budget::new(finish::abandoned(request)), found).await?)
}

/// The result of adding or removing an alias.
#[derive(Serialize)]
struct Done<'a> {
    alias_id: AliasId,
    alias: &'a str,
    image_id: ImageId,
}

impl<'a> Done<'a> {
    fn new(alias: &'a str, image_id: ImageId) -> Self {
        Self { alias_id: AliasId::of(alias), alias, image_id }
    }
}

/// An image and its new alias.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    image_id: ImageId,
    alias: String,
}

/// `POST /v2/images/alias`: adds an alias.
#[handler]
pub(crate) async fn create(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(wanted): Sent<Create>,
) -> Result<Response, Problem> {
    catalog.alias(&caller, &wanted.alias, &wanted.image_id.to_string(), None).await?;
    answer(&Done::new(wanted.alias.trim(), wanted.image_id))
}

/// The alias to remove.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remove {
    alias: String,
}

/// `POST /v2/images/dealias`: removes an alias.
#[handler]
pub(crate) async fn remove(
    Proved(caller): Proved,
    Data(catalog): Data<&Catalog>,
    Sent(unwanted): Sent<Remove>,
) -> Result<Response, Problem> {
    let alias = unwanted.alias.trim();
    catalog.require_superadmin(&caller, "dealias_image", alias).await?;
    let images = catalog.images(&caller, &visibility::ImageFilter::default())?;
    let named = images.iter().find(|image| image.aliases.iter().any(|known| **known == *alias));
    let image = named.ok_or_else(|| Error::missing("alias", shown(alias)))?.id;
    catalog.dealias(&caller, alias).await?;
    answer(&Done::new(alias, image))
}
