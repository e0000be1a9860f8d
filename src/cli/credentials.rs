//! Shows credentials that were just made: once, to a person.

use std::{borrow::Cow, fmt, net::SocketAddr};

use crate::{base::secret::Secret, cli::connection};

/// What was made for an account, without what its owner knows already.
pub(crate) struct Made<'a> {
    /// The account.
    pub(crate) email: &'a str,
    /// Its password.
    pub(crate) password: Option<&'a Secret>,
    /// Its access key and secret key.
    pub(crate) keypair: Option<(&'a str, &'a Secret)>,
    /// The server's address, if it is known.
    pub(crate) server: Option<SocketAddr>,
}

impl Made<'_> {
    /// Whether there is nothing to show.
    pub(crate) fn is_nothing(&self) -> bool {
        self.password.is_none() && self.keypair.is_none()
    }
}

impl fmt::Display for Made<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  e-mail      {}", self.email)?;
        if let Some(password) = self.password {
            writeln!(f, "  password    {}", password.expose())?;
        }
        let Some((access_key, secret_key)) = self.keypair else { return Ok(()) };
        writeln!(f, "  access key  {access_key}\n  secret key  {}", secret_key.expose())?;
        writeln!(f, "\nFor wharf's commands, in the shell that runs them:\n")?;
        write!(f, "  export")?;
        if let Some(endpoint) = self.server.and_then(unusual) {
            write!(f, " WHARF_ENDPOINT={endpoint}")?;
        }
        writeln!(
            f,
            " WHARF_ACCESS_KEY={} WHARF_SECRET_KEY={}",
            shell_word(access_key),
            shell_word(secret_key.expose())
        )
    }
}

/// The server's URL as seen from this machine; `None` if it is the one that commands assume.
fn unusual(bound: SocketAddr) -> Option<String> {
    let near = near(bound);
    (near != connection::LISTEN).then(|| format!("http://{near}"))
}

/// The address at which this machine reaches a server that listens on `bound`.
pub(crate) fn near(bound: SocketAddr) -> String {
    match bound {
        SocketAddr::V4(address) if address.ip().is_unspecified() => format!("127.0.0.1:{}", address.port()),
        SocketAddr::V6(address) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
        other => other.to_string(),
    }
}

/// Quotes a text so that a shell reads it back unchanged. Keys chosen by a user may have any visible character.
fn shell_word(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./+=".contains(&b)) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

#[cfg(test)]
mod tests {
    use crate::{base::secret::Secret, cli::credentials::Made};

    fn shown(secret: &str, server: &str) -> String {
        let (password, secret) = (Secret::new("pw"), Secret::new(secret));
        Made {
            email: "a@b",
            password: Some(&password),
            keypair: Some(("AK", &secret)),
            server: Some(server.parse().unwrap()),
        }
        .to_string()
    }

    #[test]
    fn one_line_sets_up_a_shell() {
        for (server, expected) in [
            ("127.0.0.1:8090", "export WHARF_ACCESS_KEY=AK WHARF_SECRET_KEY=a-b_c\n"),
            ("0.0.0.0:8090", "export WHARF_ACCESS_KEY=AK WHARF_SECRET_KEY=a-b_c\n"),
            (
                "0.0.0.0:80",
                "export WHARF_ENDPOINT=http://127.0.0.1:80 WHARF_ACCESS_KEY=AK WHARF_SECRET_KEY=a-b_c\n",
            ),
            ("[::]:80", "export WHARF_ENDPOINT=http://[::1]:80 WHARF_ACCESS_KEY=AK WHARF_SECRET_KEY=a-b_c\n"),
        ] {
            let shown = shown("a-b_c", server);
            assert!(shown.ends_with(expected), "{shown}");
        }
    }

    #[test]
    fn a_key_that_means_something_to_a_shell_is_quoted() {
        let shown = shown("it's $HOME", "127.0.0.1:8090");
        assert!(shown.ends_with("WHARF_SECRET_KEY='it'\\''s $HOME'\n"), "{shown}");
    }
}
