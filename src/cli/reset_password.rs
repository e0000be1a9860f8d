//! `wharf user reset-password`: new credentials, made on the console of the machine that has the data directory.

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
};

use clap::Args;

use crate::{
    access::{
        accounts::Accounts,
        audit::{Audit, Retention},
        hasher::Hasher,
        sessions::{SessionLimits, Sessions},
        throttle::Throttle,
        tokens::Tokens,
    },
    base::clock::Clock,
    cli::{
        self,
        credentials::Made,
        failure::{Failure, Result},
        password, serve,
    },
    store::{Store, last_seen},
};

/// Give a user a new password, and a new keypair if asked to, while the server is stopped
///
/// Works on the data directory itself, so that it needs no credentials; the server must be stopped. If the account was
/// switched off, it is active afterwards.
///
/// Generated credentials are shown once, on the terminal. If stdout is no terminal, nothing is changed, unless there is
/// nothing to show (--password-stdin without --keypair) or --show allows printing there.
#[derive(Args)]
pub(crate) struct ResetPassword {
    /// The user's e-mail address; the first start of the server makes admin@localhost unless told otherwise
    email: String,
    /// The stopped server's data directory
    #[arg(long, value_name = "DIR", default_value = serve::DATA_DIR)]
    data_dir: PathBuf,
    /// Also replace all keypairs of the user by a new one; the old ones and all API tokens stop working
    #[arg(long)]
    keypair: bool,
    /// Read the new password from stdin instead of generating one
    #[arg(long)]
    password_stdin: bool,
    /// Print what is generated even if stdout is a pipe or a file, which may keep it
    #[arg(long)]
    show: bool,
}

impl ResetPassword {
    pub(crate) fn run(&self) -> Result<()> {
        let generates = self.keypair || !self.password_stdin;
        if generates && !self.show && !io::stdout().is_terminal() {
            return Err(Failure::usage(
                "stdout is no terminal to show new credentials on; nothing was changed",
            )
            .remedy("allow it with --show, or give the password with --password-stdin"));
        }
        let failed = |why: String| Failure::failed("reset-password", why);
        // Opened before asking for the password, so that the user types none for a directory that does not exist.
        let store = Store::open_existing(&self.data_dir).map_err(|why| failed(why.to_string()))?;
        let accounts = Accounts::load(&store).map_err(|why| failed(why.to_string()))?;
        let given = self.password_stdin.then(password::from_stdin).transpose()?;
        let clock = Clock::system();
        let known = last_seen::recall(&store, &clock).and_then(|()| Throttle::load(&store, clock.clone()));
        let doors = known.and_then(|throttle| {
            let audit = Audit::load(&store, clock.clone(), Retention::default())?;
            let sessions = Sessions::load(&store, &accounts, clock.clone(), SessionLimits::default())?;
            Ok((throttle, sessions, Tokens::load(&store, &accounts, audit, clock.clone())?))
        });
        let (throttle, sessions, tokens) = doors.map_err(|why| failed(why.to_string()))?;
        // All sessions of the user end, and failed attempts to sign in are forgotten. Tokens are revoked if the
        // keypairs are replaced, or if the account was switched off.
        let hasher = Hasher::new().map_err(|why| failed(why.to_string()))?;
        let reset = accounts.reset(&hasher, &self.email, given, self.keypair, clock.now(), |w, user| {
            throttle.clear(w, &user.email)?;
            sessions.end_all(w, user.id, None)?;
            if self.keypair || !user.is_active() { tokens.revoke_all(w, user.id) } else { Ok(()) }
        });
        let reset = reset.map_err(|why| failed(why.to_string()))?;
        let made = Made {
            email: &self.email,
            password: (!self.password_stdin).then_some(&reset.password),
            keypair: reset.keypair.as_ref().map(|(access_key, secret_key)| (access_key.as_str(), secret_key)),
            server: None,
        };
        if made.is_nothing() {
            return cli::print(&format!("changed the password of {}", self.email));
        }
        cli::print(&format!("New credentials; they are not shown again.\n\n{made}"))
    }
}
