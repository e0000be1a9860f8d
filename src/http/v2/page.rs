//! Ordered lists, one page at a time.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::base::{Error, Result};

/// The number of items on a page if the client does not say.
const DEFAULT_LIMIT: usize = 50;
/// The most items on a page.
const MAX_LIMIT: usize = 1_000;
/// The most orders in one request: more than there are fields to order by.
const MAX_ORDERS: usize = 20;

/// The position and length of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Page {
    limit: usize,
    offset: usize,
}

impl Page {
    /// Returns the page for these arguments.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a negative or zero length, or one that is too large.
    pub(crate) fn new(limit: Option<i64>, offset: Option<i64>) -> Result<Self> {
        let limit = match limit {
            None => DEFAULT_LIMIT,
            Some(given) => {
                usize::try_from(given).ok().filter(|given| (1..=MAX_LIMIT).contains(given)).ok_or_else(
                    || Error::invalid("limit", format!("{given} is not between 1 and {MAX_LIMIT}")),
                )?
            }
        };
        let offset = usize::try_from(offset.unwrap_or_default())
            .map_err(|_| Error::invalid("offset", "it can't be less than 0"))?;
        Ok(Self { limit, offset })
    }

    /// Returns the part of these items that is on the page.
    pub(crate) fn of<T, N>(self, all: Vec<T>, node: impl Fn(T) -> N) -> Found<N> {
        let total_count = all.len();
        let items: Vec<N> = all.into_iter().skip(self.offset).take(self.limit).map(node).collect();
        Found {
            has_next_page: self.offset.saturating_add(items.len()) < total_count,
            has_previous_page: self.offset > 0 && total_count > 0,
            total_count,
            items,
        }
    }
}

/// A page of search results.
#[derive(Debug, Serialize)]
pub(crate) struct Found<N> {
    items: Vec<N>,
    total_count: usize,
    has_next_page: bool,
    has_previous_page: bool,
}

/// A field to order by, and the direction.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OrderBy<F> {
    field: F,
    #[serde(default)]
    direction: Direction,
}

/// The direction of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Direction {
    /// The least first.
    #[default]
    #[serde(rename = "ASC", alias = "asc")]
    Ascending,
    /// The greatest first.
    #[serde(rename = "DESC", alias = "desc")]
    Descending,
}

/// Sorts items by the first field, equal ones by the second, and so on; items equal in all fields keep their order.
///
/// # Errors
/// [`Error::Invalid`] for too many orders.
pub(crate) fn sort<T, F: Copy>(
    items: &mut [T],
    orders: Option<&[OrderBy<F>]>,
    compare: impl Fn(F, &T, &T) -> Ordering,
) -> Result<()> {
    let orders = orders.unwrap_or_default();
    if orders.len() > MAX_ORDERS {
        return Err(Error::invalid("order", format!("it may have {MAX_ORDERS} parts at most")));
    }
    items.sort_by(|a, b| {
        let by = |order: &OrderBy<F>| {
            let ordering = compare(order.field, a, b);
            if order.direction == Direction::Ascending { ordering } else { ordering.reverse() }
        };
        orders.iter().map(by).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{OrderBy, Page, sort};

    #[test]
    fn a_page_knows_what_is_around_it() {
        let page = |limit, offset| {
            let found = Page::new(limit, offset).unwrap().of((0..10).collect(), |n: i32| n);
            (found.items, found.total_count, found.has_previous_page, found.has_next_page)
        };
        assert_eq!(page(Some(3), None), (vec![0, 1, 2], 10, false, true));
        assert_eq!(page(Some(3), Some(8)), (vec![8, 9], 10, true, false));
        assert_eq!(page(None, Some(i64::MAX)), (vec![], 10, true, false));
        for (limit, offset) in [(Some(0), None), (Some(-1), None), (Some(1001), None), (None, Some(-1))] {
            assert!(Page::new(limit, offset).is_err(), "{limit:?} {offset:?}");
        }
    }

    #[test]
    fn later_orders_decide_where_earlier_ones_do_not() {
        let orders: Vec<OrderBy<usize>> =
            serde_json::from_str(r#"[{"field": 1, "direction": "DESC"}, {"field": 0}]"#).unwrap();
        let mut items = vec![[2, 1], [1, 1], [3, 2]];
        sort(&mut items, Some(&orders), |field, a, b| a[field].cmp(&b[field])).unwrap();
        assert_eq!(items, [[3, 2], [1, 1], [2, 1]]);
    }
}
