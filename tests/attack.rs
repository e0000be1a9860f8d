//! Clients that want the server down, or others out of it, each with a good client beside: it is answered all the while,
//! and the server stays small.
//!
//! All of it is bounded in count and time, and goes to this machine's own loopback addresses.

mod beside;
mod connections;
mod documents;
mod nesting;
mod passwords;
mod patterns;
mod readers;
