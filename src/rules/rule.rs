//! A rule as it is stored, and how it is made and changed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::caller::{Caller, Credential, Origin, Role};
use crate::access::names::checked_name;
use crate::base::arch;
use crate::base::ids::UserId;
use crate::base::reference::shown;
use crate::base::{Error, Result};
use crate::fleet::expression::Expression;
use crate::rules::book::Standing;
use crate::rules::pattern::ImagePattern;
use crate::rules::window::Window;
use crate::store::Table;

/// Longest name of an architecture; none in use has half of it.
const MAX_ARCHITECTURE: usize = 32;

/// A standing preload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Its unique name.
    pub(crate) name: String,
    /// The pattern for its images, see [`ImagePattern`].
    pub(crate) images: String,
    /// The expression for its agents, evaluated anew in each round.
    pub(crate) target_agents: String,
    /// The one architecture whose images it loads, onto agents of it; `None` for each agent's own.
    #[serde(default)]
    pub(crate) architecture: Option<String>,
    /// When it may begin something; `None` for always.
    #[serde(default)]
    pub(crate) window: Option<Window>,
    /// Whether it is switched on.
    pub(crate) enabled: bool,
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

/// The new values of a rule; `None` leaves one as it is.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleChange {
    /// See [`Rule::images`].
    pub(crate) images: Option<String>,
    /// See [`Rule::target_agents`].
    pub(crate) target_agents: Option<String>,
    /// The architecture, in any common spelling; empty for each agent's own.
    pub(crate) architecture: Option<String>,
    /// The window, `HH:MM-HH:MM`; empty for always.
    pub(crate) window: Option<String>,
    /// The window's time zone; empty for the server's own.
    pub(crate) time_zone: Option<String>,
    /// See [`Rule::enabled`].
    pub(crate) enabled: Option<bool>,
}

impl Standing for Rule {
    const TABLE: Table<Self> = Table::new("RULE_NAME_TO_RULE");
    const KIND: &'static str = "preload rule";

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

impl Rule {
    /// Makes a new rule from these values.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed, or is missing.
    pub(crate) fn new(name: &str, wanted: RuleChange, caller: &Caller, now: Timestamp) -> Result<Self> {
        let rule = Self {
            name: checked_rule_name(name)?,
            images: String::new(),
            target_agents: String::new(),
            architecture: None,
            window: None,
            enabled: true,
            created_at: now,
            created_by: caller.email.clone(),
            modified_at: now,
            modified_by: caller.email.clone(),
            owner: caller.user,
        };
        let given = |text: Option<String>| Some(text.unwrap_or_default());
        let wanted =
            RuleChange { images: given(wanted.images), target_agents: given(wanted.target_agents), ..wanted };
        rule.changed(wanted, caller, now)
    }

    /// The rule after a change.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be parsed.
    pub(crate) fn changed(self, change: RuleChange, caller: &Caller, now: Timestamp) -> Result<Self> {
        let images = change.images.map(|text| ImagePattern::parse(&text).map(|pattern| pattern.to_string()));
        let agents = change.target_agents.map(|text| parsed(&text).map(|_| text.trim().to_owned()));
        let architecture = match &change.architecture {
            Some(text) => architecture(text)?,
            None => self.architecture,
        };
        let window =
            changed_window(self.window.as_ref(), change.window.as_deref(), change.time_zone.as_deref())?;
        Ok(Self {
            images: images.transpose()?.unwrap_or(self.images),
            target_agents: agents.transpose()?.unwrap_or(self.target_agents),
            architecture,
            window,
            enabled: change.enabled.unwrap_or(self.enabled),
            modified_at: now,
            modified_by: caller.email.clone(),
            owner: caller.user,
            ..self
        })
    }

    /// The caller in whose name the rule acts: the user who last changed it.
    pub(crate) fn caller(&self) -> Caller {
        acting_for(self.owner, &self.modified_by, Credential::Rule(self.name.clone()))
    }
}

/// The caller that a rule acts as: the user who is responsible for it.
pub(crate) fn acting_for(user: UserId, email: &str, credential: Credential) -> Caller {
    Caller {
        user,
        email: email.into(),
        role: Role::Superadmin,
        domain: String::new(),
        access_key: String::new(),
        origin: Origin { credential, ..Origin::default() },
    }
}

/// The window of a rule after a change of it and of its time zone; an empty text removes a window, or its zone.
///
/// # Errors
/// [`Error::Invalid`] for texts that can't be parsed, and for a zone without a window.
pub(crate) fn changed_window(
    known: Option<&Window>,
    text: Option<&str>,
    zone: Option<&str>,
) -> Result<Option<Window>> {
    Ok(match (text.map(str::trim), known) {
        (Some(""), _) | (None, None) if zone.is_some_and(|zone| !zone.trim().is_empty()) => {
            let why = "there is no window that it could be of; give a window too, or leave it out";
            return Err(Error::invalid("time_zone", why));
        }
        (Some(""), _) | (None, None) => None,
        (Some(text), known) => Some(Window::parse(text, zone.or_else(|| known.and_then(Window::zone)))?),
        (None, Some(known)) => Some(Window::parse(&known.to_string(), zone.or(known.zone()))?),
    })
}

/// Parses an expression.
///
/// # Errors
/// [`Error::Invalid`] with a caret at the mistake. Names that no agent has are not an error.
pub(crate) fn parsed(text: &str) -> Result<Expression> {
    Expression::parse(text).map_err(|error| error.refusal(text))
}

/// Reads the architecture of a rule; `None` for an empty text. Images of it may come later.
///
/// # Errors
/// [`Error::Invalid`] for a text that can't be the name of one.
pub(crate) fn architecture(text: &str) -> Result<Option<String>> {
    let name = arch::named(text);
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.len() > MAX_ARCHITECTURE || !name.bytes().all(is_word) {
        let why = format!("{:?} is none; give one such as x86_64 or aarch64", shown(text));
        return Err(Error::invalid("architecture", why));
    }
    Ok(Some(name).filter(|name| !name.is_empty()))
}

/// Checks a name that a shell and a log line treat as one word.
pub(crate) fn checked_rule_name(name: &str) -> Result<String> {
    let name = checked_name("name", name)?;
    if name.chars().any(char::is_whitespace) || name.starts_with('-') {
        let why = format!("{name:?} has a space, or begins with a dash; choose one word, such as nightly");
        return Err(Error::invalid("name", why));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{Rule, RuleChange};
    use crate::access::caller::{Caller, Origin, Role};
    use crate::base::ids::UserId;

    fn caller() -> Caller {
        Caller {
            user: UserId::random(),
            email: "ann@lab".into(),
            role: Role::Superadmin,
            domain: "default".into(),
            access_key: String::new(),
            origin: Origin::default(),
        }
    }

    fn change(images: &str, agents: &str, window: Option<&str>, zone: Option<&str>) -> RuleChange {
        RuleChange {
            images: Some(images.into()),
            target_agents: Some(agents.into()),
            architecture: None,
            window: window.map(Into::into),
            time_zone: zone.map(Into::into),
            enabled: None,
        }
    }

    fn new(wanted: RuleChange) -> Result<Rule, String> {
        Rule::new("nightly", wanted, &caller(), Timestamp::UNIX_EPOCH).map_err(|error| error.to_string())
    }

    #[test]
    fn a_change_leaves_the_rest() {
        let made = new(change("cr.lab/*", " gpu[01-04] ", Some("22:00-06:00"), Some("Asia/Seoul"))).unwrap();
        assert_eq!((made.target_agents.as_str(), made.enabled), ("gpu[01-04]", true));
        let changed = |wanted| made.clone().changed(wanted, &caller(), Timestamp::UNIX_EPOCH).unwrap();
        let off = changed(RuleChange { enabled: Some(false), ..RuleChange::default() });
        assert_eq!(
            Rule { enabled: true, owner: made.owner, ..off },
            made,
            "all else is as it was, and so is the zone of the window"
        );
        let arm = changed(RuleChange { architecture: Some(" ARM64 ".into()), ..RuleChange::default() });
        assert_eq!(arm.architecture.as_deref(), Some("aarch64"));
        let still = arm.clone().changed(RuleChange::default(), &caller(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(still.architecture, arm.architecture);
        let all = RuleChange { architecture: Some(String::new()), ..RuleChange::default() };
        assert_eq!(arm.changed(all, &caller(), Timestamp::UNIX_EPOCH).unwrap().architecture, None);
        let later = changed(RuleChange { window: Some("23:00-05:00".into()), ..RuleChange::default() });
        let window = later.window.unwrap();
        assert_eq!((window.to_string().as_str(), window.zone()), ("23:00-05:00", Some("Asia/Seoul")));
        let own = changed(RuleChange { time_zone: Some(String::new()), ..RuleChange::default() });
        assert_eq!(own.window.unwrap().zone(), None);
        let always = changed(RuleChange { window: Some(String::new()), ..RuleChange::default() });
        assert_eq!(always.window, None);
    }

    #[test]
    fn what_can_not_be_read_is_refused_with_the_field() {
        for (wanted, words) in [
            (change("", "*", None, None), "images: it is empty"),
            (change("cr.lab/a", "*", None, None), "images: "),
            (change("cr.lab/*", "", None, None), "target_agents: EMPTY"),
            (change("cr.lab/*", "gpu[4-1]", None, None), "target_agents: RANGE_REVERSED at 3"),
            (change("cr.lab/*", "*", Some("9-5"), None), "window: "),
            (change("cr.lab/*", "*", Some("22:00-06:00"), Some("Nowhere/Land")), "time_zone: "),
            (change("cr.lab/*", "*", None, Some("UTC")), "time_zone: there is no window"),
            (RuleChange::default(), "images: it is empty"),
            (
                RuleChange { architecture: Some("a b".into()), ..change("cr.lab/*", "*", None, None) },
                "architecture: \"a b\" is none",
            ),
        ] {
            let refusal = new(wanted).unwrap_err();
            assert!(refusal.starts_with(words), "{refusal}");
        }
        for name in ["", "two words", "-x", &"a".repeat(65)] {
            let made = Rule::new(name, change("*", "*", None, None), &caller(), Timestamp::UNIX_EPOCH);
            assert!(made.unwrap_err().to_string().starts_with("name: "), "{name}");
        }
        assert!(new(change("cr.lab/*", "nobody[01-99],@none", None, None)).is_ok(), "names may come later");
    }
}
