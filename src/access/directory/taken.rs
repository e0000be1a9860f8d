//! E-mail addresses and short names that are taken already: how much of that is told to whom.
//!
//! No two accounts of a server may share one, or neither could sign in with it; so the server can't hide from the admin
//! of a domain that a name is not free. But it hides why: whether an account of another domain has it is none of their
//! business. The message is the same for all of them, and it is rationed: an admin who asks for many such names gets no
//! name for a while, not even a free one. Each free name tried on the way has become an account by then, with a row in
//! the audit log.

use std::time::Duration;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, sees_user};
use crate::access::user::User;
use crate::base::{Error, Result};

/// How many such refusals one admin may get at once, and how soon one more may follow: more than happens by chance, and
/// a hundred in a day for an admin who searches.
const MOST: u32 = 20;
const EVERY: Duration = Duration::from_mins(15);

impl Directory {
    /// The error for a name that belongs to another user; `plain` is for callers who see that user.
    pub(in crate::access::directory) fn taken(
        &self,
        caller: &Caller,
        what: &'static str,
        other: &User,
        plain: String,
    ) -> Error {
        if sees_user(caller, other) {
            return Error::Exists(plain);
        }
        let now = self.clock.steady();
        let mut unseen = self.unseen.lock();
        unseen.retain(|_, bucket| bucket.level(EVERY, now) > 0);
        unseen.entry(caller.user).or_default().add(EVERY, now);
        Error::invalid(what, "it can't be used here; choose another, or ask a super-admin")
    }

    /// Refuses a caller who got too many of those refusals.
    pub(in crate::access::directory) fn check_names_left(&self, caller: &Caller) -> Result<()> {
        let now = self.clock.steady();
        let unseen = self.unseen.lock();
        let Some(bucket) = unseen.get(&caller.user) else { return Ok(()) };
        if bucket.level(EVERY, now) < MOST {
            return Ok(());
        }
        let seconds = bucket.next(EVERY, now).as_secs() + 1;
        Err(Error::Busy(format!(
            "too many of the names you gave can't be used here; try again in {seconds} s, or ask a super-admin"
        )))
    }
}
