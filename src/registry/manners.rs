//! What one registry was found to take: by which request it says most cheaply where a tag points, how long its pages
//! may be, how it gives tokens. It is learned from the registry's answers and kept with its description.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How long what was learned counts: after that, what is cheaper is tried again.
const LASTING: Duration = Duration::from_hours(24);
/// How often in a row a cheaper request must be refused, and the plainer one answered, until the registry is taken to
/// refuse it always: a single 403 or 500 may be passing trouble.
const CONVINCING: u8 = 3;

/// What one registry was found to take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Manners {
    /// How its tags are probed.
    pub(crate) probe: ProbeMode,
    /// How many names are asked for at once.
    pub(crate) page: PageSize,
    /// How its token server is asked.
    pub(crate) token: TokenMethod,
    /// Whether it refuses to send parts of blobs.
    pub(crate) refuses_ranges: bool,
    /// When this began to be learned, if that was noted.
    pub(crate) since: Option<Timestamp>,
}

/// The cheapest request by which a registry tells where a tag points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ProbeMode {
    /// Not known yet.
    #[default]
    Unknown,
    /// GET with `If-None-Match`; 304 comes before the manifest is even loaded.
    Conditional,
    /// HEAD.
    Head,
    /// GET, where neither works.
    Get,
}

/// How many names a page of a list is asked to have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PageSize {
    /// The most that `distribution` allows by default.
    #[default]
    Large,
    /// A hundred, the most that many others allow.
    Small,
    /// No number is given.
    Any,
}

/// How a token server is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenMethod {
    /// GET with Basic authentication (Docker token specification).
    #[default]
    Get,
    /// POST of a form (OAuth 2).
    Post,
}

/// What is being learned about one registry, and what speaks for it so far.
#[derive(Debug, Default)]
pub(crate) struct Learning {
    /// What is known.
    pub(crate) known: Manners,
    refused: [u8; 3],
}

/// A cheaper request, which has a plainer one to fall back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cheaper {
    /// To probe a tag.
    Probe,
    /// For a number of names.
    Page,
    /// For a part of a blob.
    Range,
}

impl Learning {
    /// Begins with what is known.
    pub(crate) fn new(known: Manners) -> Self {
        Self { known, ..Self::default() }
    }

    /// Notes that a cheaper request was refused and the plainer one behind it answered. Whether that has happened often
    /// enough in a row to be a habit; the count then begins anew.
    pub(crate) fn was_refused(&mut self, refused: Cheaper) -> bool {
        let count = self.count(refused);
        *count += 1;
        let is_enough = *count >= CONVINCING;
        if is_enough {
            *count = 0;
        }
        is_enough
    }

    /// Notes that a cheaper request was answered.
    pub(crate) fn was_answered(&mut self, request: Cheaper) {
        *self.count(request) = 0;
    }

    fn count(&mut self, request: Cheaper) -> &mut u8 {
        let [probe, page, range] = &mut self.refused;
        match request {
            Cheaper::Probe => probe,
            Cheaper::Page => page,
            Cheaper::Range => range,
        }
    }
}

impl Manners {
    /// These manners at this time: forgotten after a day.
    pub(crate) fn at(self, now: Timestamp) -> Self {
        let since = self.since.unwrap_or(now);
        // A clock that was set back says nothing about the age.
        let is_fresh = now.duration_since(since).unsigned_abs() < LASTING;
        if is_fresh {
            Self { since: Some(since), ..self }
        } else {
            Self { since: Some(now), ..Self::default() }
        }
    }
}

impl PageSize {
    /// The number of names to ask for.
    pub(crate) fn names(self) -> Option<usize> {
        match self {
            Self::Large => Some(1000),
            Self::Small => Some(100),
            Self::Any => None,
        }
    }

    /// What to ask for where this is refused.
    pub(crate) fn smaller(self) -> Option<Self> {
        match self {
            Self::Large => Some(Self::Small),
            Self::Small => Some(Self::Any),
            Self::Any => None,
        }
    }
}

impl TokenMethod {
    /// The other method.
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Get => Self::Post,
            Self::Post => Self::Get,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::{Manners, PageSize, ProbeMode};

    #[test]
    fn what_was_learned_counts_for_a_day() {
        let begun = Timestamp::from_second(1_700_000_000).unwrap();
        let learned = Manners { probe: ProbeMode::Get, page: PageSize::Small, ..Manners::default() };
        let noted = learned.at(begun);
        assert_eq!(noted, Manners { since: Some(begun), ..learned });
        let later = |hours| begun + Duration::from_hours(hours);
        assert_eq!(noted.at(later(23)), noted);
        for now in [later(24), later(9999), begun - Duration::from_hours(25)] {
            assert_eq!(noted.at(now), Manners { since: Some(now), ..Manners::default() });
        }
    }
}
