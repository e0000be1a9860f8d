//! Pages of lists, as the clients ask for them: `limit`, `offset`, `filter` and `order`.

use crate::base::{Error, Result};

/// The most rows one request lists.
pub const MAX_ROWS: usize = 10_000;

/// The arguments of a `*_list`.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// No more than so many.
    pub limit: i32,
    /// Leave out so many.
    pub offset: i32,
    /// An expression; none is taken yet.
    pub filter: Option<String>,
    /// An expression; none is taken yet.
    pub order: Option<String>,
}

impl Slice {
    /// The page, and how many rows there are in all.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a number below zero, and for any `filter` or `order`.
    pub fn of<T>(self, rows: Vec<T>) -> Result<(Vec<T>, Option<i32>)> {
        for (given, field) in [(self.filter, "filter"), (self.order, "order")] {
            if given.is_some_and(|text| !text.trim().is_empty()) {
                return Err(Error::invalid(field, "expressions are not taken here yet; leave it out"));
            }
        }
        let natural = |field, number: i32| {
            usize::try_from(number)
                .map_err(|_| Error::invalid(field, format!("{number} is less than 0; give 0 or more")))
        };
        let (limit, offset) = (natural("limit", self.limit)?, natural("offset", self.offset)?);
        let total = i32::try_from(rows.len()).ok();
        Ok((rows.into_iter().skip(offset).take(limit.min(MAX_ROWS)).collect(), total))
    }
}

/// Rows as the schema has them, each behind a null that never is.
pub fn rows<T, N: From<T>>(found: impl IntoIterator<Item = T>) -> Vec<Option<N>> {
    found.into_iter().take(MAX_ROWS).map(|row| Some(N::from(row))).collect()
}

#[cfg(test)]
mod tests {
    use super::Slice;

    #[test]
    fn a_page_is_cut_out_and_what_can_not_be_done_is_refused() {
        let slice = |limit, offset| Slice { limit, offset, ..Slice::default() };
        let all = || vec![1, 2, 3, 4, 5];
        assert_eq!(slice(2, 3).of(all()).unwrap(), (vec![4, 5], Some(5)));
        assert_eq!(slice(2, 9).of(all()).unwrap(), (vec![], Some(5)));
        assert_eq!(slice(0, 0).of(all()).unwrap(), (vec![], Some(5)));
        for (bad, why) in [(slice(-1, 0), "limit: -1 is less than 0"), (slice(1, -2), "offset: -2 is less")] {
            assert!(bad.of(all()).unwrap_err().to_string().starts_with(why));
        }
        let with = |filter: &str, order: &str| Slice {
            filter: Some(filter.into()),
            order: Some(order.into()),
            ..slice(1, 0)
        };
        assert!(with("", " ").of(all()).is_ok());
        assert!(with("x", "").of(all()).is_err());
        assert!(with("", "x").of(all()).is_err());
    }
}
