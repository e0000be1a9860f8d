//! An account and its keypairs, as the store keeps them.

use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::caller::Role;
use crate::base::ids::UserId;
use crate::base::{Error, Result};
use crate::store::seal::Sealed;

/// The default number of requests a keypair may make in a window (what Backend.AI's clients send).
pub(crate) const DEFAULT_RATE_LIMIT: u32 = 5_000;

/// Whether an account may be used (Backend.AI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Status {
    /// It may be used.
    #[default]
    Active,
    /// It may not be used for now.
    Inactive,
    /// It may not be used: its owner has not proved the e-mail address yet.
    BeforeVerification,
    /// It was deleted, and is kept until it is purged.
    Deleted,
}

impl Status {
    /// The word used in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::BeforeVerification => "before-verification",
            Self::Deleted => "deleted",
        }
    }
}

impl FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let all = [Self::Active, Self::Inactive, Self::BeforeVerification, Self::Deleted];
        let found = all.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| {
            let words = all.map(Self::as_str).join(", ");
            Error::invalid("status", format!("{text:?} is none of {words}"))
        })
    }
}

/// An account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct User {
    /// Its id.
    pub(crate) id: UserId,
    /// The e-mail address it signs in with; no two accounts have the same, regardless of case.
    pub(crate) email: String,
    /// A short name; empty if it has none, and then the e-mail address is shown.
    #[serde(default)]
    pub(crate) username: String,
    /// The person's name.
    #[serde(default)]
    pub(crate) full_name: String,
    /// A note for other admins.
    #[serde(default)]
    pub(crate) description: String,
    /// What it may do.
    pub(crate) role: Role,
    /// Whether it may be used.
    #[serde(default)]
    pub(crate) status: Status,
    /// Whether its owner should choose another password.
    #[serde(default)]
    pub(crate) need_password_change: bool,
    /// The domain it belongs to.
    pub(crate) domain: String,
    /// The argon2id hash of its password.
    pub(crate) password: String,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// When it was last changed.
    #[serde(default)]
    pub(crate) modified_at: Option<Timestamp>,
    /// What an outside system calls it.
    #[serde(default)]
    pub(crate) integration_id: Option<String>,
}

impl User {
    /// The short name; the e-mail address if it has none.
    pub(crate) fn shown_name(&self) -> &str {
        if self.username.is_empty() { &self.email } else { &self.username }
    }

    /// Whether the account may be used.
    pub(crate) fn is_active(&self) -> bool {
        self.status == Status::Active
    }
}

/// An API credential of a user, as the store keeps it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Keypair {
    /// Its public half.
    pub(crate) access_key: String,
    /// Its secret half; see [`crate::access::accounts::Accounts`] for who can open it.
    pub(crate) secret_key: Sealed,
    /// The user it belongs to.
    pub(crate) user: UserId,
    /// Whether it may be used.
    pub(crate) is_active: bool,
    /// How many requests it may make in a window; 0 for any number.
    #[serde(default)]
    pub(crate) rate_limit: u32,
    /// When it was made.
    pub(crate) created_at: Timestamp,
    /// When it was last used, to the hour.
    #[serde(default)]
    pub(crate) last_used: Option<Timestamp>,
}
