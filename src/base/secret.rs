//! Secret text, which must not show up where text usually does.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A password, secret key or token. It prints as `[secret]` and is wiped when dropped.
///
/// Serialising writes the text itself: only into an encrypted record, or as the body of the request it is for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself. The name is long so that every use is seen in review.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A text from a party that knows the secret, with the secret hidden in it.
    pub(crate) fn hidden_in(&self, text: &str) -> String {
        if self.0.is_empty() { text.into() } else { text.replace(&self.0, "[secret]") }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Some(Secret::new("hunter2"))), "Some([secret])");
        assert_eq!(Secret::new("hunter2").hidden_in("not hunter2, no"), "not [secret], no");
        assert_eq!(Secret::new("").hidden_in("no"), "no");
    }
}
