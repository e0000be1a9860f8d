//! Pages of lists as clients ask for them: `limit`, `offset`, `filter` and `order`.

use async_graphql::Context;

use crate::access::caller::Caller;
use crate::base::Result;
use crate::base::walk::{Budget, Meter, Walks};
use crate::graphql::kit::field::Record;
use crate::graphql::kit::filter::Filter;
use crate::graphql::kit::order::Order;
use crate::graphql::kit::page::{self, MAX_ROWS, Window, natural};

/// The arguments of a `*_list`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slice {
    /// The most rows to return.
    pub(crate) limit: i32,
    /// How many rows to skip.
    pub(crate) offset: i32,
    /// An expression that rows must match.
    pub(crate) filter: Option<String>,
    /// The fields that rows are ordered by, then by their keys.
    pub(crate) order: Option<String>,
}

impl Slice {
    /// Returns the page, and how many rows there are in all; each row comes with a unique key.
    ///
    /// # Errors
    /// Those of [`natural`] and [`page::page`]; [`crate::base::Error::Invalid`] for expressions that can't be parsed.
    pub(crate) fn of<'a, R: Record>(
        &self,
        rows: impl Iterator<Item = (&'a str, R::View<'a>)>,
        meter: &Meter,
    ) -> Result<(Vec<R::View<'a>>, Option<i32>)> {
        natural("limit", self.limit)?;
        let filter = Filter::<R>::parse(self.filter.as_deref())?;
        let order = Order::<R>::parse(self.order.as_deref())?;
        let window = Window { offset: Some(self.offset), first: Some(self.limit), ..Window::default() };
        let page = page::page(rows, &filter, &order, &window, meter)?;
        let found = page.rows.into_iter().map(|(row, _)| row).collect();
        Ok((found, i32::try_from(page.count).ok()))
    }
}

/// Returns how many rows a list without filters skips, and how many it returns: `usual` if `limit` is not given, and
/// `most` at most.
///
/// # Errors
/// Those of [`natural`].
pub(crate) fn stretch(
    offset: Option<i32>,
    limit: Option<i32>,
    usual: usize,
    most: usize,
) -> Result<(usize, usize)> {
    let limit = limit.map_or(Ok(usual), |limit| natural("limit", limit))?;
    Ok((natural("offset", offset.unwrap_or_default())?, limit.min(most)))
}

/// Runs `work`, which looks at many rows, on a walk thread: for the caller, within the request's budget.
///
/// # Errors
/// Those of `work`, and those of [`Walks::run`].
pub(crate) async fn walk<T: Send + 'static>(
    ctx: &Context<'_>,
    work: impl FnOnce(&Meter) -> Result<T> + Send + 'static,
) -> Result<T> {
    let budget = ctx.data_opt::<Budget>().cloned().unwrap_or_default();
    ctx.data_unchecked::<Walks>().run(ctx.data_unchecked::<Caller>().user, &budget, work).await
}

/// Returns rows as the schema declares them: each nullable, though none is ever null.
pub(crate) fn rows<T, N: From<T>>(found: impl IntoIterator<Item = T>) -> Vec<Option<N>> {
    found.into_iter().take(MAX_ROWS).map(|row| Some(N::from(row))).collect()
}
