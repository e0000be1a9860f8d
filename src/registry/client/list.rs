//! Lists of repositories and tags, page by page to their end.

use std::collections::HashSet;

use reqwest::StatusCode;
use url::Url;

use crate::registry::{
    ask::{Ask, Failing},
    client::{Client, Names, pull},
    error::{Error, Reason},
    listing::{ListKind, Listing},
    manners::{Cheaper, PageSize},
    paging::next_link,
    transport::HttpAnswer,
};

/// Largest page of tags or repositories. A hundred thousand tags take 2 MB.
const MAX_PAGE: usize = 32 * 1024 * 1024;
/// Most pages in a row without a new name. Registries that filter what a user may see send a few such pages; one that
/// sends more never comes to an end.
const MAX_IDLE: usize = 100;

/// The names on all pages that could be found.
enum Listed {
    /// The last page is known to be the last.
    Whole(Names),
    /// The last page is full, and nothing leads on from it.
    Doubtful(Names),
}

impl Client {
    /// Lists the repositories (`_catalog`, an extension that many registries lack or reserve for administrators).
    pub(crate) async fn repositories(&self) -> Result<Names, Error> {
        self.list(ListKind::Repositories, "_catalog", "registry:catalog:*", "catalog").await
    }

    /// Lists the tags of a repository: all pages, or an error. [`Reason::NotFound`] says that there is no such
    /// repository.
    pub(crate) async fn tags(&self, repository: &str) -> Result<Names, Error> {
        self.check_repository(repository)?;
        let doing = format!("tags of {repository}");
        self.list(ListKind::Tags, &format!("{repository}/tags/list"), &pull(repository), &doing).await
    }

    async fn list(&self, kind: ListKind, path: &str, scope: &str, doing: &str) -> Result<Names, Error> {
        let mut ask = self.ask(path, MAX_PAGE, doing.to_owned())?;
        if kind == ListKind::Repositories {
            ask.header_deadline = self.0.net.limits.catalog_headers;
        }
        let usual = self.manners().page;
        let mut page = usual;
        let listed = loop {
            let smaller = page.smaller();
            ask.failing = if smaller.is_some() { Failing::Plainer } else { Failing::Again };
            match (self.list_by(kind, &ask, scope, page.names()).await, smaller) {
                (Err(error), Some(smaller)) if refuses_number(&error) => page = smaller,
                (outcome, _) => break outcome?,
            }
        };
        self.note_page(usual, page);
        ask.failing = Failing::Again;
        let before = match listed {
            Listed::Whole(names) => return Ok(names),
            Listed::Doubtful(names) => names,
        };
        // Without a number there may be more; and a registry that sends as many names where one less is asked for knows
        // no pages, so that what it sends is the list.
        let ways =
            [(None, before.good.len() + 1), (Some(before.good.len().saturating_sub(1)), before.good.len())];
        for (size, enough) in ways {
            if let Listed::Whole(names) = self.list_by(kind, &ask, scope, size).await?
                && names.good.len() >= enough
            {
                return Ok(names);
            }
        }
        let why =
            "a full page has no link to the next one, and the registry does not go on after its last name";
        Err(self.fail(&ask, Reason::Invalid(why.into())))
    }

    /// Notes with how many names on a page a list was read, and how many it was asked to have first.
    fn note_page(&self, usual: PageSize, worked: PageSize) {
        let mut manners = self.0.net.manners.lock();
        if worked == usual {
            manners.was_answered(Cheaper::Page);
        } else if manners.was_refused(Cheaper::Page) {
            manners.known.page = worked;
        }
    }

    /// Reads all pages of `size` names, or of as many as the registry likes.
    async fn list_by(
        &self,
        kind: ListKind,
        bare: &Ask,
        scope: &str,
        size: Option<usize>,
    ) -> Result<Listed, Error> {
        let limits = &self.0.net.limits;
        let mut listing = Listing::new(kind, limits.names);
        let mut ask = Ask { url: page_url(&bare.url, size, None), ..bare.clone() };
        let (mut visited, mut idle, mut is_guess) = (HashSet::new(), 0, false);
        loop {
            let invalid = |why: &str| self.fail(&ask, Reason::Invalid(why.into()));
            if !visited.insert(ask.url.clone()) {
                return Err(invalid("the links between the pages of the list form a loop"));
            }
            if visited.len() > limits.pages {
                let limit = u64::try_from(limits.pages).unwrap_or(u64::MAX);
                return Err(self.fail(&ask, Reason::TooLarge { limit, what: "pages" }));
            }
            let answer = self.send(&ask, scope).await?;
            if answer.status != StatusCode::OK {
                return match self.refusal(&ask, &answer) {
                    _ if is_guess => Ok(Listed::Doubtful(listing.finish())),
                    refusal if visited.len() == 1 => Err(refusal),
                    refusal => Err(broken_off(refusal, visited.len())),
                };
            }
            let page = listing
                .add(&answer.body)
                .map_err(|reason| self.fail(&ask, HttpAnswer::explained(&answer.headers, reason)))?;
            if is_guess && page.new == 0 && page.entries > 0 {
                // The registry ignores `last`.
                return Ok(Listed::Doubtful(listing.finish()));
            }
            idle = if page.new == 0 { idle + 1 } else { 0 };
            if idle > MAX_IDLE {
                return Err(invalid("the list goes on and on without a new name"));
            }
            let linked = self.linked(&ask, &answer)?;
            is_guess = linked.is_none();
            ask.url = match (linked, size == Some(page.entries), page.last) {
                (Some(url), ..) => url,
                // A page longer than asked for is everything.
                (None, false, _) => return Ok(Listed::Whole(listing.finish())),
                // A full page without a link: some registries only understand `last`.
                (None, true, Some(last)) => page_url(&bare.url, size, Some(&last)),
                (None, true, None) => return Ok(Listed::Doubtful(listing.finish())),
            };
            // What fails from here on is no refusal of the number of names.
            ask.failing = Failing::Again;
        }
    }

    /// The next page according to the link of this one.
    fn linked(&self, ask: &Ask, answer: &HttpAnswer) -> Result<Option<Url>, Error> {
        let policy = &self.0.net.policy;
        // A page that another host sent after a redirect does not say where our own pages are.
        let page = if policy.is_home(&answer.url) { &answer.url } else { &ask.url };
        next_link(&answer.headers, page).map_err(|reason| self.fail(ask, reason))
    }
}

/// Whether a registry may mean the number of names that was asked for by this refusal of a first page. There are many
/// codes for it; the status is enough.
fn refuses_number(error: &Error) -> bool {
    matches!(error.reason, Reason::Status { status: 400 | 405 | 413 | 414 | 416 | 422 | 431 | 500 | 501, .. })
}

/// The error of a list that ended before its last page. What the status says is about that page: it does not say that
/// the repository is gone, or that its list may not be read.
fn broken_off(refusal: Error, page: usize) -> Error {
    let why = format!("the list breaks off at page {page}: {}", refusal.reason);
    Error { reason: Reason::Invalid(why), ..refusal }
}

fn page_url(bare: &Url, size: Option<usize>, last: Option<&str>) -> Url {
    let mut url = bare.clone();
    if let Some(size) = size {
        url.query_pairs_mut().append_pair("n", &size.to_string());
    }
    if let Some(last) = last {
        url.query_pairs_mut().append_pair("last", last);
    }
    url
}
