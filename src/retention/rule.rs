//! A retention rule as it is stored, and how it is made and changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::caller::{Caller, Credential};
use crate::base::ids::UserId;
use crate::base::{Error, Result};
use crate::rules::book::Standing;
use crate::rules::pattern::ImagePattern;
use crate::rules::rule::{acting_for, changed_window, checked_rule_name, parsed};
use crate::rules::window::Window;
use crate::store::Table;
use crate::transfer::room::RuleTerms;

/// The shortest time that images can be required to be unused: a clock is believed when it is off by less than a day.
const SHORTEST: u32 = 24 * 60 * 60;
/// Most images of a repository that a rule can keep.
const MOST_KEPT: u32 = 1_000;

/// A rule that takes images off agents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetentionRule {
    /// Its unique name.
    pub(crate) name: String,
    /// The pattern for the images it may take, see [`ImagePattern`].
    pub(crate) images: String,
    /// The expression for its agents, evaluated anew each time.
    pub(crate) target_agents: String,
    /// How many images of each repository stay on each agent: those that were made last.
    #[serde(default)]
    pub(crate) keep_last: Option<u32>,
    /// How long no container may have been seen to use an image, in seconds.
    #[serde(default)]
    pub(crate) unused_for: Option<u32>,
    /// When it takes something; `None` for whenever there is something to take.
    #[serde(default)]
    pub(crate) room: Option<Room>,
    /// Whether it also takes images that the catalog does not know.
    #[serde(default)]
    pub(crate) unknown_images: bool,
    /// When it may begin something; `None` for always.
    #[serde(default)]
    pub(crate) window: Option<Window>,
    /// Whether it is switched on.
    pub(crate) enabled: bool,
    /// Whether a person confirmed that it may take more than half of what an agent has.
    #[serde(default)]
    pub(crate) confirmed: bool,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// The e-mail address of the user who made it.
    pub(crate) created_by: String,
    /// When it was changed last.
    pub(crate) modified_at: Timestamp,
    /// The e-mail address of the user who last changed it, and so is responsible for what it does.
    pub(crate) modified_by: String,
    /// The account with the address in `modified_by`.
    pub(crate) owner: UserId,
}

/// The room that a rule makes, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Room {
    /// It takes something if less than this is free.
    pub(crate) when_below: u64,
    /// Then it takes until this is free.
    pub(crate) until: u64,
}

/// The new values of a rule; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct RetentionChange {
    /// See [`RetentionRule::images`].
    pub(crate) images: Option<String>,
    /// See [`RetentionRule::target_agents`].
    pub(crate) target_agents: Option<String>,
    /// See [`RetentionRule::keep_last`]; 0 for none.
    pub(crate) keep_last: Option<u32>,
    /// See [`RetentionRule::unused_for`]; 0 for no matter how long.
    pub(crate) unused_for: Option<u32>,
    /// See [`Room::when_below`]; 0 for whenever there is something to take.
    pub(crate) when_below: Option<u64>,
    /// See [`Room::until`].
    pub(crate) until: Option<u64>,
    /// See [`RetentionRule::unknown_images`].
    pub(crate) unknown_images: Option<bool>,
    /// The window, `HH:MM-HH:MM`; empty for always.
    pub(crate) window: Option<String>,
    /// The window's time zone; empty for the server's own.
    pub(crate) time_zone: Option<String>,
    /// See [`RetentionRule::enabled`].
    pub(crate) enabled: Option<bool>,
    /// See [`RetentionRule::confirmed`]. A change that does not say so takes the confirmation back, unless it only
    /// switches the rule on or off.
    pub(crate) confirm: bool,
}

impl RetentionChange {
    fn only_switches(&self) -> bool {
        let Self { images, target_agents, keep_last, unused_for, when_below, until, .. } = self;
        let Self { unknown_images, window, time_zone, .. } = self;
        images.is_none()
            && target_agents.is_none()
            && keep_last.is_none()
            && unused_for.is_none()
            && when_below.is_none()
            && until.is_none()
            && unknown_images.is_none()
            && window.is_none()
            && time_zone.is_none()
    }
}

impl Standing for RetentionRule {
    const TABLE: Table<Self> = Table::new("RETENTION_NAME_TO_RULE");
    const KIND: &'static str = "retention rule";

    fn name(&self) -> &str {
        &self.name
    }

    fn is_enabled(&self) -> bool {
        self.enabled
    }

    fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }
}

impl RetentionRule {
    /// Makes a new rule from these values.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, or is missing.
    pub(crate) fn new(name: &str, wanted: RetentionChange, caller: &Caller, now: Timestamp) -> Result<Self> {
        let rule = Self {
            name: checked_rule_name(name)?,
            images: String::new(),
            target_agents: String::new(),
            keep_last: None,
            unused_for: None,
            room: None,
            unknown_images: false,
            window: None,
            enabled: true,
            confirmed: false,
            created_at: now,
            created_by: caller.email.clone(),
            modified_at: now,
            modified_by: caller.email.clone(),
            owner: caller.user,
        };
        let given = |text: Option<String>| Some(text.unwrap_or_default());
        let (images, target_agents) = (given(wanted.images), given(wanted.target_agents));
        rule.changed(RetentionChange { images, target_agents, ..wanted }, caller, now)
    }

    /// The rule after a change.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, and for a rule that would take everything.
    pub(crate) fn changed(self, change: RetentionChange, caller: &Caller, now: Timestamp) -> Result<Self> {
        let confirmed = change.confirm || (self.confirmed && change.only_switches());
        let images = change.images.map(|text| ImagePattern::parse(&text).map(|pattern| pattern.to_string()));
        let agents = change.target_agents.map(|text| parsed(&text).map(|_| text.trim().to_owned()));
        let keep_last = change.keep_last.or(self.keep_last).filter(|count| *count > 0);
        if keep_last.is_some_and(|count| count > MOST_KEPT) {
            return Err(Error::invalid("keep_last", format!("{MOST_KEPT} of each repository at most")));
        }
        let unused_for = change.unused_for.or(self.unused_for).filter(|seconds| *seconds > 0);
        if unused_for.is_some_and(|seconds| seconds < SHORTEST) {
            return Err(Error::invalid("unused_for", "a day is the least"));
        }
        let rule = Self {
            images: images.transpose()?.unwrap_or(self.images),
            target_agents: agents.transpose()?.unwrap_or(self.target_agents),
            keep_last,
            unused_for,
            room: room(self.room, change.when_below, change.until)?,
            unknown_images: change.unknown_images.unwrap_or(self.unknown_images),
            window: changed_window(
                self.window.as_ref(),
                change.window.as_deref(),
                change.time_zone.as_deref(),
            )?,
            enabled: change.enabled.unwrap_or(self.enabled),
            confirmed,
            modified_at: now,
            modified_by: caller.email.clone(),
            owner: caller.user,
            ..self
        };
        if rule.keep_last.is_none() && rule.unused_for.is_none() && rule.room.is_none() {
            let why = "it would take every image that nobody wants; say how many of each repository stay, how long \
                       an image must be unused, or how little room must be free";
            return Err(Error::invalid("unused_for", why));
        }
        Ok(rule)
    }

    /// What it asks of an image that it takes.
    pub(crate) fn terms(&self) -> RuleTerms {
        RuleTerms {
            unused_for: self.unused_for,
            keep_last: self.keep_last,
            until: self.room.map(|room| room.until),
            unknown_images: self.unknown_images,
        }
    }

    /// The caller in whose name the rule acts: the user who last changed it.
    pub(crate) fn caller(&self) -> Caller {
        acting_for(self.owner, &self.modified_by, Credential::Retention(self.name.clone()))
    }
}

/// The room to make after a change.
fn room(before: Option<Room>, when_below: Option<u64>, until: Option<u64>) -> Result<Option<Room>> {
    let below = when_below.or(before.map(|room| room.when_below)).filter(|bytes| *bytes > 0);
    let Some(when_below) = below else {
        if until.is_some_and(|bytes| bytes > 0) {
            let why = "it is the end of something that never begins; say below how much it begins";
            return Err(Error::invalid("until", why));
        }
        return Ok(None);
    };
    let until = until.or(before.map(|room| room.until)).unwrap_or(when_below);
    if until < when_below {
        return Err(Error::invalid("until", "it is less than what it begins below"));
    }
    Ok(Some(Room { when_below, until }))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{RetentionChange, RetentionRule, Room};
    use crate::access::caller::Caller;

    const DAY: u32 = 24 * 60 * 60;

    fn change() -> RetentionChange {
        RetentionChange {
            images: Some("cr.lab/*".into()),
            target_agents: Some("*".into()),
            unused_for: Some(30 * DAY),
            ..RetentionChange::default()
        }
    }

    fn new(wanted: RetentionChange) -> Result<RetentionRule, String> {
        let made = RetentionRule::new("old", wanted, &Caller::superadmin(), Timestamp::UNIX_EPOCH);
        made.map_err(|error| error.to_string())
    }

    fn changed(rule: &RetentionRule, change: RetentionChange) -> Result<RetentionRule, String> {
        let changed = rule.clone().changed(change, &Caller::superadmin(), Timestamp::UNIX_EPOCH);
        changed.map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_that_takes_everything_or_can_not_be_read_is_refused_with_the_field() {
        for (wanted, words) in [
            (RetentionChange { unused_for: None, ..change() }, "unused_for: it would take every image"),
            (RetentionChange { unused_for: Some(DAY - 1), ..change() }, "unused_for: a day is the least"),
            (RetentionChange { keep_last: Some(1_001), ..change() }, "keep_last: 1000 of each"),
            (RetentionChange { until: Some(5), ..change() }, "until: it is the end of something"),
            (RetentionChange { when_below: Some(6), until: Some(5), ..change() }, "until: it is less"),
            (RetentionChange { images: Some("a".into()), ..change() }, "images: "),
            (RetentionChange { target_agents: Some("gpu[2-1]".into()), ..change() }, "target_agents: "),
            (RetentionChange { time_zone: Some("UTC".into()), ..change() }, "time_zone: there is no window"),
        ] {
            let refusal = new(wanted).unwrap_err();
            assert!(refusal.starts_with(words), "{refusal}");
        }
    }

    #[test]
    fn a_change_leaves_the_rest_and_takes_a_confirmation_back_unless_it_only_switches() {
        let made = new(RetentionChange { when_below: Some(5), confirm: true, ..change() }).unwrap();
        assert_eq!(made.room, Some(Room { when_below: 5, until: 5 }));
        let off =
            changed(&made, RetentionChange { enabled: Some(false), ..RetentionChange::default() }).unwrap();
        assert_eq!(RetentionRule { enabled: true, owner: made.owner, ..off }, made);
        let more = changed(&made, RetentionChange { until: Some(9), ..RetentionChange::default() }).unwrap();
        assert_eq!((more.room, more.confirmed), (Some(Room { when_below: 5, until: 9 }), false));
        let none = RetentionChange { when_below: Some(0), unused_for: Some(0), ..RetentionChange::default() };
        assert!(changed(&more, none).unwrap_err().contains("would take every image"));
        let last = RetentionChange { when_below: Some(0), keep_last: Some(2), ..RetentionChange::default() };
        assert_eq!(changed(&more, last).unwrap().room, None);
    }
}
