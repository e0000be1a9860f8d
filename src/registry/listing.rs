//! The names a registry lists, read page by page without turning a page into objects.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::{
    base::reference::{is_repository, is_tag},
    registry::{
        client::Names,
        error::{Reason, visible},
    },
};

/// Most refused names kept to be shown; the rest are only counted.
const MAX_REFUSED: usize = 100;

/// What a listing is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    Tags,
    Repositories,
}

impl ListKind {
    fn field(self) -> &'static str {
        match self {
            Self::Tags => "tags",
            Self::Repositories => "repositories",
        }
    }

    fn check(self, name: &str) -> Result<(), &'static str> {
        match self {
            Self::Tags if !is_tag(name) => {
                Err("not a tag: 1 to 128 of A-Z a-z 0-9 _ . -, not starting with . or -")
            }
            Self::Repositories if !is_repository(name) => Err("not a repository name by the OCI grammar"),
            _ => Ok(()),
        }
    }
}

/// A listing while it grows.
#[derive(Debug)]
pub(crate) struct Listing {
    kind: ListKind,
    limit: usize,
    seen: HashSet<String>,
    names: Names,
}

/// What one page added.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// The number of entries on it, valid or not.
    pub(crate) entries: usize,
    /// The number of names not seen before.
    pub(crate) new: usize,
    /// The last entry, from which a registry without links continues.
    pub(crate) last: Option<String>,
}

impl Listing {
    /// An empty listing of at most `limit` names.
    pub(crate) fn new(kind: ListKind, limit: usize) -> Self {
        Self { kind, limit, seen: HashSet::new(), names: Names::default() }
    }

    /// Adds the names of a page.
    ///
    /// # Errors
    /// [`Reason::Invalid`] for a body that is not such a page, [`Reason::TooLarge`] beyond the limit of names.
    pub(crate) fn add(&mut self, body: &[u8]) -> Result<Page, Reason> {
        let mut page = Page { entries: 0, new: 0, last: None };
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = Reader { listing: self, page: &mut page }.deserialize(&mut json).and_then(|()| json.end());
        if self.seen.len() > self.limit {
            let limit = u64::try_from(self.limit).unwrap_or(u64::MAX);
            return Err(Reason::TooLarge { limit, what: "names" });
        }
        match read {
            Ok(()) => Ok(page),
            Err(_) => Err(Reason::Invalid(format!("the body is no list of {}", self.kind.field()))),
        }
    }

    /// All names, in the order they came.
    pub(crate) fn finish(self) -> Names {
        self.names
    }

    /// Takes one entry; returns false once there are too many.
    fn take(&mut self, name: &str, page: &mut Page) -> bool {
        page.entries += 1;
        if let Err(why) = self.kind.check(name) {
            self.names.refused_count += 1;
            if self.names.refused.len() < MAX_REFUSED {
                self.names.refused.push((visible(name), why));
            }
            return true;
        }
        if self.seen.insert(name.to_owned()) {
            page.new += 1;
            self.names.good.push(name.to_owned());
        }
        page.last = Some(name.to_owned());
        self.seen.len() <= self.limit
    }
}

struct Reader<'a> {
    listing: &'a mut Listing,
    page: &'a mut Page,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a page of names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if key != self.listing.kind.field() {
                map.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut found, true) {
                return Err(A::Error::custom("listed twice"));
            } else {
                map.next_value_seed(Entries { listing: self.listing, page: self.page })?;
            }
        }
        if found { Ok(()) } else { Err(A::Error::custom("nothing listed")) }
    }
}

struct Entries<'a> {
    listing: &'a mut Listing,
    page: &'a mut Page,
}

impl<'de> DeserializeSeed<'de> for Entries<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        // Many registries send `null` for an empty list.
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Entries<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("names or null")
    }

    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<(), A::Error> {
        while let Some(name) = names.next_element::<Cow<'de, str>>()? {
            if !self.listing.take(&name, self.page) {
                return Err(A::Error::custom("too many names"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{ListKind, Listing};
    use crate::registry::error::Reason;

    #[test]
    fn names_that_break_the_grammar_are_refused_and_shown_harmlessly() {
        let mut listing = Listing::new(ListKind::Tags, 100);
        let hostile = [
            "../..",
            "%2e%2e",
            "",
            ".hidden",
            "-rf",
            ";rm -rf /",
            "<script>alert(1)</script>",
            "\u{1b}[31mred",
            "a b",
            "\u{202e}gnp.exe",
            "\u{1f600}",
            "a\u{0}b",
            "a\nb",
            &"x".repeat(300),
        ];
        let mut tags = vec!["1.0", "con", "latest", "1.0"];
        tags.extend(hostile);
        let page =
            listing.add(serde_json::json!({"name": "a", "tags": tags}).to_string().as_bytes()).unwrap();
        assert_eq!((page.entries, page.new, page.last.as_deref()), (18, 3, Some("1.0")));
        let names = listing.finish();
        assert_eq!(names.good, ["1.0", "con", "latest"]);
        assert_eq!((names.refused.len(), names.refused_count), (14, 14));
        for (shown, _) in &names.refused {
            assert!(shown.chars().count() <= 80 && shown.chars().all(|c| !c.is_control()), "{shown}");
            assert!(!shown.contains('\u{202e}'), "{shown}");
        }
    }

    #[test]
    fn repositories_follow_their_own_grammar() {
        let mut listing = Listing::new(ListKind::Repositories, 100);
        listing.add(br#"{"repositories":["lab/python","../etc","Upper","a//b","a"]}"#).unwrap();
        let names = listing.finish();
        assert_eq!(names.good, ["lab/python", "a"]);
        assert_eq!(names.refused_count, 3);
    }

    #[test]
    fn null_is_an_empty_page_and_garbage_is_an_error() {
        let mut listing = Listing::new(ListKind::Tags, 100);
        assert_eq!(listing.add(br#"{"name":"a","tags":null}"#).unwrap().entries, 0);
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"tags":{}}"#,
            r#"{"tags":[1]}"#,
            r#"{"tags":["a"]"#,
            r#"{"tags":["a"]} x"#,
            r#"{"tags":["a"],"tags":["b"]}"#,
            r#"{"tags":"a"}"#,
            "\u{feff}{\"tags\":[]}",
            r#"{"tags":["\ud800"]}"#,
            "<html>",
            "{\"tags\":[\"a\0\"]}",
        ] {
            assert!(matches!(listing.add(bad.as_bytes()), Err(Reason::Invalid(_))), "{bad}");
        }
        let deep = format!(r#"{{"x":{}{},"tags":[]}}"#, "[".repeat(100_000), "]".repeat(100_000));
        // Parts that are not read are skipped without recursion, however deep.
        let _ = listing.add(deep.as_bytes());
        let deep = format!(r#"{{"tags":{}"#, "[".repeat(100_000));
        assert!(listing.add(deep.as_bytes()).is_err());
    }

    #[test]
    fn a_listing_ends_at_its_limit_of_names_and_counts_floods_of_bad_ones() {
        let mut listing = Listing::new(ListKind::Tags, 10);
        let tags: Vec<String> = (0..11).map(|i| i.to_string()).collect();
        let body = serde_json::json!({"tags": tags}).to_string();
        assert!(matches!(listing.add(body.as_bytes()), Err(Reason::TooLarge { limit: 10, .. })));
        let mut listing = Listing::new(ListKind::Tags, 10);
        listing.add(serde_json::json!({"tags": vec!["!"; 5000]}).to_string().as_bytes()).unwrap();
        let names = listing.finish();
        assert_eq!((names.refused.len(), names.refused_count), (super::MAX_REFUSED, 5000));
    }
}
