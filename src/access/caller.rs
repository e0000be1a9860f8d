//! The caller: the user that a request comes from. Every service call begins with it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::ids::UserId;
use crate::base::{Error, Result};

/// What a user may do (Backend.AI's roles).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Superadmin,
    /// Administers a domain.
    Admin,
    /// Uses what a domain offers.
    User,
    /// Reads.
    Monitor,
}

impl Role {
    /// The word used in the API.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Superadmin => "superadmin",
            Self::Admin => "admin",
            Self::User => "user",
            Self::Monitor => "monitor",
        }
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "superadmin" => Ok(Self::Superadmin),
            "admin" => Ok(Self::Admin),
            "user" => Ok(Self::User),
            "monitor" => Ok(Self::Monitor),
            _ => Err(Error::invalid("role", format!("{text:?} is none of superadmin, admin, user, monitor"))),
        }
    }
}

/// What proved who the caller is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Credential {
    /// The server itself, or a person at its machine's console.
    #[default]
    Console,
    /// A signed request, by this access key.
    Keypair(String),
    /// A session that a password opened.
    Session,
    /// A personal API token, by its name.
    Token(String),
    /// A standing rule, by its name: the server repeats what a user told it to do.
    Rule(String),
    /// A retention rule, by its name.
    Retention(String),
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console => f.write_str("console"),
            Self::Keypair(access_key) => write!(f, "keypair {access_key}"),
            Self::Session => f.write_str("session"),
            Self::Token(name) => write!(f, "token {name}"),
            Self::Rule(name) => write!(f, "rule {name}"),
            Self::Retention(name) => write!(f, "retention {name}"),
        }
    }
}

/// A session as the server knows it: the hash of the key that its owner presents. The hash opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SessionId(pub(in crate::access) [u8; 32]);

/// Where a request comes from, and what proved who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// What proved who the caller is.
    pub(crate) credential: Credential,
    /// The address it was sent from.
    pub(crate) address: Option<IpAddr>,
    /// Whether the credential is for reading only.
    pub(crate) read_only: bool,
    /// The session, if a session proved it.
    pub(crate) session: Option<SessionId>,
}

/// A user whose identity was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The account.
    pub user: UserId,
    /// Its e-mail address.
    pub email: String,
    /// Its role.
    pub role: Role,
    /// The domain it belongs to.
    pub domain: String,
    /// The keypair whose scaling groups count: the one that signed the request, or else the user's first.
    pub access_key: String,
    /// Where the request comes from.
    pub origin: Origin,
}

impl Caller {
    /// A super-admin, for tests.
    #[cfg(test)]
    pub(crate) fn superadmin() -> Self {
        Self {
            user: UserId::random(),
            email: "admin@lab".into(),
            role: Role::Superadmin,
            domain: "default".into(),
            access_key: "AK".into(),
            origin: Origin::default(),
        }
    }

    /// Whether the caller may do everything.
    pub(crate) fn is_superadmin(&self) -> bool {
        self.role == Role::Superadmin
    }

    /// Refuses callers who are no super-admins.
    ///
    /// # Errors
    /// [`Error::Denied`], which names `action` and nothing else.
    pub(crate) fn require_superadmin(&self, action: &str) -> Result<()> {
        if self.is_superadmin() { Ok(()) } else { Err(Error::Denied(action.into())) }
    }

    /// Refuses API tokens of any scope: a thief of a token must not be able to prolong it.
    ///
    /// # Errors
    /// [`Error::Denied`].
    pub(crate) fn require_no_token(&self, action: &str) -> Result<()> {
        if matches!(self.origin.credential, Credential::Token(_)) {
            return Err(Error::Denied(format!("{action} with a token")));
        }
        Ok(())
    }

    /// Whether the caller administers this domain.
    pub(crate) fn administers(&self, domain: &str) -> bool {
        self.is_superadmin() || (self.role == Role::Admin && self.domain == domain)
    }
}
