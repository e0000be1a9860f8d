//! The one who asks: every service call begins with it.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::ids::UserId;
use crate::base::{Error, Result};

/// What a user may do (Backend.AI's roles).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub fn as_str(self) -> &'static str {
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
    /// The keypair that signed the request.
    pub access_key: String,
}

impl Caller {
    /// Whether the caller may do everything.
    pub fn is_superadmin(&self) -> bool {
        self.role == Role::Superadmin
    }

    /// Lets only super-admins on.
    ///
    /// # Errors
    /// [`Error::Denied`], which names `action` and nothing else.
    pub fn require_superadmin(&self, action: &str) -> Result<()> {
        if self.is_superadmin() { Ok(()) } else { Err(Error::Denied(action.into())) }
    }
}
