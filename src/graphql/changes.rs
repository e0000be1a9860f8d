//! What changed in the catalog.

use async_graphql::{Context, Object};

use crate::access::caller::Caller;
use crate::base::Error;
use crate::base::digest::Digest;
use crate::base::reference::shown;
use crate::catalog::changes::Change;
use crate::catalog::history::{Found, MAX_LISTED, Wanted};
use crate::catalog::service::Catalog;
use crate::graphql::kit::fault::FieldResult;
use crate::graphql::kit::limit::LIST_COST;
use crate::graphql::kit::listing::stretch;

/// The number of changes if the request does not say.
const USUAL: usize = 1_000;

/// A change of one image.
pub(crate) struct ImageChange(Change);

#[Object(rename_fields = "snake_case")]
impl ImageChange {
    /// When the server took it in, in RFC 3339.
    async fn at(&self) -> String {
        self.0.at.to_string()
    }

    /// What happened: `new`, `moved` to another digest, or `removed`.
    async fn kind(&self) -> &str {
        self.0.kind()
    }

    /// The registry's host.
    async fn registry(&self) -> &str {
        &self.0.registry
    }

    /// The repository, without the registry.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// The tag.
    async fn tag(&self) -> &str {
        &self.0.tag
    }

    /// The architecture, as `uname -m` has it.
    async fn architecture(&self) -> &str {
        &self.0.architecture
    }

    /// What the tag pointed to before; null for a new image.
    async fn before(&self) -> Option<&str> {
        self.0.before.as_ref().map(Digest::as_str)
    }

    /// What the tag points to now; null for an image that was removed.
    async fn after(&self) -> Option<&str> {
        self.0.after.as_ref().map(Digest::as_str)
    }
}

/// Changes of images, newest first.
pub(crate) struct ImageChanges(Found);

#[Object(rename_fields = "snake_case")]
impl ImageChanges {
    /// The changes.
    async fn items(&self) -> Vec<ImageChange> {
        self.0.changes.iter().cloned().map(ImageChange).collect()
    }

    /// Whether there are older ones, which the limit left out.
    async fn is_cut(&self) -> bool {
        self.0.is_cut
    }
}

/// The queries.
#[derive(Default)]
pub(crate) struct ChangeQuery;

#[Object(rename_fields = "snake_case", rename_args = "snake_case")]
impl ChangeQuery {
    /// What changed of the images that the caller may see, newest first. The server keeps the last 100,000 changes.
    #[graphql(complexity = "LIST_COST + child_complexity")]
    async fn image_changes(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Not before this moment, as in 2026-01-31T08:00:00Z.")] since: Option<String>,
        #[graphql(desc = "Before this moment.")] until: Option<String>,
        #[graphql(desc = "Only of this registry, by its host.")] registry: Option<String>,
        #[graphql(desc = "How many; 1,000 if not given, 10,000 at most.")] limit: Option<i32>,
    ) -> FieldResult<Option<ImageChanges>> {
        let (caller, catalog) = (ctx.data_unchecked::<Caller>(), ctx.data_unchecked::<Catalog>());
        let moment = |name: &'static str, text: Option<String>| {
            let wrong = |text: &str| {
                Error::invalid(name, format!("{:?} is no moment such as 2026-01-31T08:00:00Z", shown(text)))
            };
            text.map(|text| text.trim().parse().map_err(|_| wrong(&text))).transpose()
        };
        let (_, limit) = stretch(None, limit, USUAL, MAX_LISTED)?;
        let wanted =
            Wanted { since: moment("since", since)?, until: moment("until", until)?, registry, limit };
        Ok(Some(ImageChanges(catalog.what_changed(caller, wanted).await?)))
    }
}
