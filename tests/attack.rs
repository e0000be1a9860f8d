//! Clients that try to bring the server down, or to shut other clients out. Beside each works a well-behaved client:
//! it must get its answers all the time, and the server must stay small.
//!
//! All attacks are bounded in count and time, and go to this machine's own loopback addresses.

mod beside;
mod connections;
mod documents;
mod nesting;
mod passwords;
mod patterns;
mod readers;
