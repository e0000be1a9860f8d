//! A page of a list, filtered and ordered in one pass, and addressed by Relay's cursors.
//!
//! A cursor holds the values that its row is ordered by, not the number of rows before it. So the next page begins
//! where the last one ended, even if rows, including that row itself, were added or removed meanwhile.

use std::cmp::Ordering;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value as Json;

use crate::base::walk::Meter;
use crate::base::{Error, Result};
use crate::graphql::kit::field::{Record, Value};
use crate::graphql::kit::filter::Filter;
use crate::graphql::kit::order::Order;

/// The rows in a page if the request does not say, as in Backend.AI.
const DEFAULT_ROWS: usize = 10;
/// The most rows in a page.
pub(crate) const MAX_ROWS: usize = 10_000;
/// The longest cursor, in bytes: eight texts of 255 bytes and their encoding.
const MAX_CURSOR: usize = 8_192;
/// The cost of a row, as [`Meter::look`] counts.
const ROW: usize = 16;
/// The cost of a field that rows are ordered by: it is read, as a name is, and compared.
const ORDERED: usize = 128;
/// The fewest rows kept before the worst of them are dropped.
const LEAST_KEPT: usize = 512;

/// The arguments that select a page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// How many rows to skip before anything else.
    pub(crate) offset: Option<i32>,
    /// How many rows to take from the start.
    pub(crate) first: Option<i32>,
    /// How many rows to take from the end.
    pub(crate) last: Option<i32>,
    /// Take only rows after this cursor.
    pub(crate) after: Option<String>,
    /// Take only rows before this cursor.
    pub(crate) before: Option<String>,
}

/// A page of rows.
pub(crate) struct Page<V> {
    /// The rows, each with its cursor.
    pub(crate) rows: Vec<(V, String)>,
    /// The number of rows on all pages together.
    pub(crate) count: usize,
    /// Whether there are rows before these.
    pub(crate) has_previous: bool,
    /// Whether there are rows after these.
    pub(crate) has_next: bool,
}

/// A row that may go onto a page: its key, which is unique and by which rows are sorted, and the row.
type Candidate<'a, R> = (&'a str, <R as Record>::View<'a>);

/// Returns a page of rows that are sorted by their keys, and counts on `meter` what it looks at.
///
/// # Errors
/// [`Error::Invalid`] for arguments that contradict each other, and for cursors of another list or order; those of
/// [`Meter::go_on`].
pub(crate) fn page<'a, R: Record>(
    rows: impl Iterator<Item = Candidate<'a, R>>,
    filter: &Filter<R>,
    order: &Order<R>,
    window: &Window,
    meter: &Meter,
) -> Result<Page<R::View<'a>>> {
    let is_backward = window.is_backward()?;
    let (offset, wanted) = (window.offset()?, window.wanted()?);
    let cursor = window.after.as_deref().or(window.before.as_deref());
    let cursor = cursor.map(|text| Cursor::read(text, order)).transpose()?;
    let cursor_values = cursor.as_ref().map(|cursor| cursor.values(order)).transpose()?;

    let start =
        cursor.as_ref().zip(cursor_values).map(|(cursor, values)| RowPosition { key: &cursor.key, values });
    let way = Way { order, is_backward };
    let is_beyond = |row: Candidate<'a, R>| start.as_ref().is_none_or(|start| way.from(row, start).is_gt());

    let mut best = Best { way, kept: Vec::new(), most: offset.saturating_add(wanted), worst: None };
    let (mut count, mut beyond) = (0_usize, 0_usize);
    for row in rows {
        meter.go_on()?;
        meter.look(ROW + order.len() * ORDERED);
        if !filter.holds(row.1, meter) {
            continue;
        }
        count += 1;
        if is_beyond(row) {
            beyond += 1;
            best.offer(row);
        }
    }
    let mut rows: Vec<_> = best.finish().into_iter().skip(offset).collect();
    let is_before = count - beyond + offset.min(beyond) > 0;
    let is_behind = beyond.saturating_sub(offset) > rows.len();
    if is_backward {
        rows.reverse();
    }
    let (has_previous, has_next) = if is_backward { (is_behind, is_before) } else { (is_before, is_behind) };
    let rows = rows.into_iter().map(|(key, view)| (view, Cursor::write(key, view, order))).collect();
    Ok(Page { rows, count, has_previous, has_next })
}

/// The order in which rows are wanted: forward or backward.
struct Way<'o, R: Record> {
    order: &'o Order<R>,
    is_backward: bool,
}

/// The position of a row in an order: read once, and compared with many rows.
struct RowPosition<'a> {
    key: &'a str,
    values: Vec<Value<'a>>,
}

impl<R: Record> Clone for Way<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: Record> Copy for Way<'_, R> {}

impl<R: Record> Way<'_, R> {
    fn turned(self, order: Ordering) -> Ordering {
        if self.is_backward { order.reverse() } else { order }
    }

    /// Returns which of two rows is wanted first.
    fn compare(self, a: Candidate<'_, R>, b: Candidate<'_, R>) -> Ordering {
        self.turned(self.order.compare(a.1, b.1).then_with(|| a.0.cmp(b.0)))
    }

    /// Returns which is wanted first: a row, or the row at a position.
    fn from(self, row: Candidate<'_, R>, place: &RowPosition<'_>) -> Ordering {
        self.turned(self.order.compare_values(row.1, &place.values).then_with(|| row.0.cmp(place.key)))
    }
}

/// The best rows so far. It keeps up to twice as many rows as wanted, then drops the worse half at once. So each row
/// costs one comparison with the worst wanted row, and now and then a share of a selection.
struct Best<'o, 'a, R: Record> {
    way: Way<'o, R>,
    kept: Vec<Candidate<'a, R>>,
    most: usize,
    /// The worst row still wanted: no row after it is.
    worst: Option<RowPosition<'a>>,
}

impl<'a, R: Record> Best<'_, 'a, R> {
    fn offer(&mut self, row: Candidate<'a, R>) {
        if self.is_full() || self.worst.as_ref().is_some_and(|worst| self.way.from(row, worst).is_gt()) {
            return;
        }
        self.kept.push(row);
        if self.kept.len() >= self.most.saturating_mul(2).max(LEAST_KEPT) {
            self.drop_worse();
        }
    }

    /// Whether all wanted rows are found. Rows that come in the wanted order need no comparison: the first are the
    /// best.
    fn is_full(&self) -> bool {
        let come_in_order = self.way.order.is_empty() && !self.way.is_backward;
        self.most == 0 || come_in_order && self.kept.len() >= self.most
    }

    fn drop_worse(&mut self) {
        if self.kept.len() > self.most {
            let way = self.way;
            let (_, &mut (key, view), _) =
                self.kept.select_nth_unstable_by(self.most - 1, |a, b| way.compare(*a, *b));
            self.worst = Some(RowPosition { key, values: way.order.values(view) });
            self.kept.truncate(self.most);
        }
    }

    fn finish(mut self) -> Vec<Candidate<'a, R>> {
        if self.most > 0 {
            self.drop_worse();
        }
        let way = self.way;
        self.kept.sort_unstable_by(|a, b| way.compare(*a, *b));
        self.kept
    }
}

impl Window {
    fn is_backward(&self) -> Result<bool> {
        let (forward, backward) =
            (self.first.is_some() || self.after.is_some(), self.last.is_some() || self.before.is_some());
        if forward && backward {
            return Err(Error::invalid(
                "first",
                "a page goes in one direction: give `first` and `after`, or `last` and `before`",
            ));
        }
        Ok(backward)
    }

    fn offset(&self) -> Result<usize> {
        if self.offset.is_some() && (self.after.is_some() || self.before.is_some()) {
            return Err(Error::invalid("offset", "a page begins at an offset or at a cursor; leave one out"));
        }
        natural("offset", self.offset.unwrap_or_default())
    }

    fn wanted(&self) -> Result<usize> {
        let (field, given) = if self.last.is_some() { ("last", self.last) } else { ("first", self.first) };
        let wanted = given.map_or(Ok(DEFAULT_ROWS), |number| natural(field, number))?;
        Ok(wanted.min(MAX_ROWS))
    }
}

/// Returns a number of rows, as every list takes it.
///
/// # Errors
/// [`Error::Invalid`] for a negative number.
pub(crate) fn natural(field: &'static str, number: i32) -> Result<usize> {
    usize::try_from(number)
        .map_err(|_| Error::invalid(field, format!("{number} is less than 0; give 0 or more")))
}

/// The position of a row in an order, as a client holds it.
struct Cursor {
    key: String,
    values: Vec<Json>,
}

impl Cursor {
    fn write<R: Record>(key: &str, view: R::View<'_>, order: &Order<R>) -> String {
        let values: Vec<Json> = order.values(view).iter().map(Value::to_json).collect();
        let parts = Json::Array(vec![order.text().into(), key.into(), values.into()]);
        BASE64_URL_SAFE_NO_PAD.encode(parts.to_string())
    }

    fn read<R: Record>(text: &str, order: &Order<R>) -> Result<Self> {
        let unreadable =
            || Error::invalid("cursor", "it is none of this list's; take one from `pageInfo` or `edges`");
        let bytes = Some(text).filter(|text| text.len() <= MAX_CURSOR);
        let bytes = bytes.and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok()).ok_or_else(unreadable)?;
        let (written, key, values): (String, String, Vec<Json>) =
            serde_json::from_slice(&bytes).map_err(|_| unreadable())?;
        if written != order.text() {
            let why = "it was made with another `order`; keep the order while paging, or begin again without a cursor";
            return Err(Error::invalid("cursor", why));
        }
        Ok(Self { key, values })
    }

    fn values<R: Record>(&self, order: &Order<R>) -> Result<Vec<Value<'_>>> {
        let why = "its values are not of the types of `order`; take one from `pageInfo` or `edges`";
        order.read(&self.values).ok_or_else(|| Error::invalid("cursor", why))
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{Meter, Page, Window, page};
    use crate::graphql::kit::field::{Field, Read, Record, number};
    use crate::graphql::kit::filter::Filter;
    use crate::graphql::kit::order::Order;

    struct Crate {
        key: String,
        weight: Option<u64>,
    }

    impl Record for Crate {
        type View<'a> = &'a Self;

        fn row(view: Self::View<'_>) -> &Self {
            view
        }

        fn fields() -> &'static [Field<Self>] {
            &[
                Field { name: "key", read: Read::Text(|row| Some(Cow::Borrowed(&row.key))) },
                Field { name: "weight", read: Read::Number(|row| row.weight.map(number)) },
            ]
        }
    }

    /// Many rows of equal weight, so that the key decides, and some without a weight.
    fn stock(count: u64) -> Vec<Crate> {
        (0..count)
            .map(|place| Crate {
                key: format!("{place:05}"),
                weight: (place % 7 != 0).then_some(place.wrapping_mul(2_654_435_761) % 50),
            })
            .collect()
    }

    fn take<'a>(rows: &'a [Crate], filter: &str, order: &str, window: &Window) -> Page<&'a Crate> {
        let filter = Filter::<Crate>::parse(Some(filter)).expect("a filter");
        let order = Order::<Crate>::parse(Some(order)).expect("an order");
        let meter = Meter::default();
        page(rows.iter().map(|row| (row.key.as_str(), row)), &filter, &order, window, &meter).expect("a page")
    }

    fn keys(page: &Page<&Crate>) -> Vec<String> {
        page.rows.iter().map(|(row, _)| row.key.clone()).collect()
    }

    /// Returns all keys, filtered and sorted naively.
    fn plainly(rows: &[Crate], is_descending: bool) -> Vec<String> {
        let mut rows: Vec<&Crate> = rows.iter().collect();
        rows.sort_by_key(|row| row.key.clone());
        let weight = |row: &&Crate| row.weight.unwrap_or(u64::MAX);
        if is_descending {
            rows.sort_by_key(|row| std::cmp::Reverse(weight(row)));
        } else {
            rows.sort_by_key(weight);
        }
        rows.into_iter().map(|row| row.key.clone()).collect()
    }

    #[test]
    fn pages_forward_and_backward_are_the_sorted_list_in_pieces() {
        let rows = stock(3_000);
        for (order, is_descending) in [("weight", false), ("-weight", true)] {
            let all = plainly(&rows, is_descending);
            for size in [1_i32, 300, 999, 5_000] {
                let (mut forward, mut after) = (Vec::new(), None);
                loop {
                    let window = Window { first: Some(size), after: after.take(), ..Window::default() };
                    let page = take(&rows, "", order, &window);
                    assert_eq!((page.count, page.has_previous), (3_000, !forward.is_empty()));
                    forward.extend(keys(&page));
                    after = page.rows.last().map(|(_, cursor)| cursor.clone());
                    if !page.has_next || size == 1 {
                        break;
                    }
                }
                assert_eq!(forward, all[..forward.len()], "{order} by {size}");
                let (mut backward, mut before) = (Vec::new(), None);
                loop {
                    let window = Window { last: Some(size), before: before.take(), ..Window::default() };
                    let page = take(&rows, "", order, &window);
                    assert_eq!(page.has_next, !backward.is_empty());
                    backward.splice(0..0, keys(&page));
                    before = page.rows.first().map(|(_, cursor)| cursor.clone());
                    if !page.has_previous || size == 1 {
                        break;
                    }
                }
                assert_eq!(backward, all[all.len() - backward.len()..], "{order} back by {size}");
            }
        }
    }

    #[test]
    fn an_offset_leaves_out_what_comes_first() {
        let rows = stock(20);
        let at = |offset| {
            take(
                &rows,
                "key >= \"00005\"",
                "-key",
                &Window { offset: Some(offset), first: Some(2), ..Window::default() },
            )
        };
        let page = at(3);
        assert_eq!(keys(&page), ["00016", "00015"]);
        assert_eq!((page.count, page.has_previous, page.has_next), (15, true, true));
        let page = at(100);
        assert_eq!((keys(&page).len(), page.count, page.has_previous, page.has_next), (0, 15, true, false));
        assert_eq!(keys(&take(&rows, "", "", &Window::default())).len(), 10);
    }

    #[test]
    fn a_cursor_keeps_its_place_when_its_row_is_gone_and_others_came() {
        let mut rows = stock(20);
        let first = take(&rows, "", "key", &Window { first: Some(5), ..Window::default() });
        let after = first.rows.last().map(|(_, cursor)| cursor.clone());
        rows.remove(4);
        rows.insert(0, Crate { key: "00000a".into(), weight: None });
        let second = take(&rows, "", "key", &Window { first: Some(2), after, ..Window::default() });
        assert_eq!(keys(&second), ["00005", "00006"]);
    }

    #[test]
    fn a_page_that_looks_at_too_much_is_refused() {
        let long = |place: usize| Crate { key: format!("{place}{}", "x".repeat(1 << 20)), weight: None };
        let rows: Vec<_> = (0..40).map(long).collect();
        // Each comparison ends early, but counts by the length of the text.
        let filter = vec!["key == \"y\""; 64].join(" | ");
        let filter = Filter::<Crate>::parse(Some(&filter)).expect("a filter");
        let order = Order::<Crate>::parse(None).expect("an order");
        let take = |rows: &[Crate]| {
            let rows = rows.iter().map(|row| (row.key.as_str(), row));
            page(rows, &filter, &order, &Window::default(), &Meter::default()).map(|page| page.count)
        };
        assert_eq!(take(&rows[..10]).expect("a page"), 0);
        let why = take(&rows).expect_err("too much").to_string();
        assert!(why.starts_with("filter: it takes too much work"), "{why}");
    }

    #[test]
    fn windows_and_cursors_that_make_no_sense_are_refused() {
        let rows = stock(5);
        let refusal = |order: &str, window: Window| {
            let (filter, order) = (
                Filter::<Crate>::parse(None).expect("none"),
                Order::<Crate>::parse(Some(order)).expect("an order"),
            );
            let meter = Meter::default();
            let page = page(rows.iter().map(|row| (row.key.as_str(), row)), &filter, &order, &window, &meter);
            page.err().map(|error| error.to_string()).expect("a refusal")
        };
        let cursor = take(&rows, "", "key", &Window::default()).rows[0].1.clone();
        let after = |text: &str| Window { after: Some(text.into()), ..Window::default() };
        assert!(refusal("", after(&cursor)).contains("another `order`"));
        assert!(refusal("", after("x")).contains("none of this list's"));
        assert!(refusal("", Window { offset: Some(1), ..after(&cursor) }).contains("offset"));
        assert!(
            refusal("", Window { first: Some(1), last: Some(1), ..Window::default() })
                .contains("one direction")
        );
        assert!(refusal("", Window { first: Some(-1), ..Window::default() }).contains("less than 0"));
        let order = Order::<Crate>::parse(Some("key,colour")).err().map(|error| error.to_string());
        assert!(order.is_some_and(|why| why.contains("\"colour\", but by key, weight")));
    }
}
