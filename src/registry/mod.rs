//! A client of the OCI distribution protocol, written for hostile registries.
//!
//! Start at [`client::Client`]. A request passes these modules: [`client`] says what to ask; `auth` finds the
//! `Authorization` header; `transport` sends it, follows redirects and reads the answer within [`limits`]; `pace` and
//! `retry` decide when to try again; [`address`] decides which machines may be contacted at all.
//! [`manifest`] and [`config`] parse the documents that come back.

pub(crate) mod address;
mod ask;
mod auth;
mod challenge;
pub(crate) mod client;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod limits;
mod listing;
pub(crate) mod manifest;
pub(crate) mod manners;
pub(crate) mod outbound;
pub(crate) mod pace;
mod paging;
mod retry;
pub(crate) mod silence;
pub(crate) mod tls;
mod transport;

#[cfg(test)]
mod tests;
