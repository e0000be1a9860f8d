//! Attacks by clients that try to stop the server or to shut other users out. During each attack, a good client must
//! get its answers, and the server must stay small.
//!
//! Every attack is bounded in count and time, and goes only to this machine's own loopback addresses.

mod beside;
mod connections;
mod documents;
mod nesting;
mod passwords;
mod patterns;
mod readers;
