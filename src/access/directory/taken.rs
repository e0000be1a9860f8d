//! E-mail addresses and short names that are somebody's already: how much of that is told to whom.
//!
//! No two accounts of a server have the same, or nobody could sign in with them; so it can't be hidden from the admin
//! of a domain that one can't be given. But not why: whether an account of another domain has it is nobody's business.
//! The words are the same for all of them, and few are said: who asks for many such names gets none for a while, free
//! ones neither. Every name that was free is an account by then, and has its row in the audit log.

use std::time::Duration;

use crate::access::caller::Caller;
use crate::access::directory::{Directory, sees_user};
use crate::access::user::User;
use crate::base::{Error, Result};

/// How many such refusals one admin may get at once, and how soon one more then: more than anybody meets by chance, and
/// a hundred in a day for those who search.
const MOST: u32 = 20;
const EVERY: Duration = Duration::from_mins(15);

impl Directory {
    /// Why this name of another user's can't be given; `plain` is for those who see that user.
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

    /// Lets those on who did not get too many of those refusals.
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
