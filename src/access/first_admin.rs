//! The first super-admin, with the credentials that the operator chose.

use crate::access::generate::{new_access_key, new_secret_key, random_text};
use crate::access::names::checked_email;
use crate::base::secret::Secret;
use crate::base::{Error, Result};

/// A new account's credentials, to be shown once.
#[derive(Debug, Clone)]
pub(crate) struct Credentials {
    /// The e-mail address.
    pub(crate) email: String,
    /// The password.
    pub password: Secret,
    /// The access key.
    pub(crate) access_key: String,
    /// The secret key.
    pub(crate) secret_key: Secret,
}

/// The credentials that the operator gave for the first super-admin; the others are generated.
#[derive(Debug, Clone, Default)]
pub struct FirstAdmin {
    /// The e-mail address; default `admin@localhost`.
    pub email: Option<String>,
    /// The password; generated if not given.
    pub password: Option<Secret>,
    /// The access key; generated if not given.
    pub access_key: Option<String>,
    /// The secret key; generated if not given.
    pub secret_key: Option<Secret>,
}

impl FirstAdmin {
    /// Whether the operator gave none of the credentials.
    pub(crate) fn has_nothing(&self) -> bool {
        self.password.is_none() && self.access_key.is_none() && self.secret_key.is_none()
    }

    /// Checks the given credentials and generates the others.
    pub(in crate::access) fn complete(self) -> Result<Credentials> {
        let credentials = Credentials {
            email: checked_email(self.email.as_deref().unwrap_or("admin@localhost"))?,
            password: self.password.map_or_else(|| random_text(24).map(Secret::new), Ok)?,
            access_key: self.access_key.map_or_else(new_access_key, Ok)?,
            secret_key: self.secret_key.map_or_else(new_secret_key, Ok)?,
        };
        check_key("access key", &credentials.access_key, 4)?;
        check_key("secret key", credentials.secret_key.expose(), 16)?;
        Ok(credentials)
    }
}

/// Checks a key: it travels in a header, the access key before a colon.
fn check_key(field: &'static str, key: &str, shortest: usize) -> Result<()> {
    let letters = key.bytes().all(|b| b.is_ascii_graphic() && b != b':' && b != b',');
    if letters && (shortest..=128).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::invalid(
        field,
        format!("it must have {shortest} to 128 visible ASCII characters without ':' and ','"),
    ))
}
