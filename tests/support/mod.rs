//! What the tests drive: the server, its clients, and the real parts beside it.

#![allow(dead_code, reason = "a vocabulary for tests; not every word is in use at every commit")]

pub mod api;
pub mod app;
pub mod client;
pub mod clock;
pub mod containerd;
pub mod cut;
pub mod daemon;
pub mod disk;
pub mod dockerd;
pub mod http1;
pub mod image;
pub mod layout;
pub mod machine;
pub mod node;
pub mod people;
pub mod podman;
pub mod process;
pub mod proxy;
pub mod registry;
pub mod release;
pub mod rude;
pub mod shelf;
pub mod sign;
pub mod simulated;
pub mod sse;
pub mod tokens;
pub mod verbs;
pub mod visitor;
pub mod wait;
pub mod within;

/// Reports that a real part (a registry, an official client, `openssl`) is not on this machine.
///
/// `make test` sets `WHARF_REQUIRE_REAL=1`, which makes this a failure: a test that did not run proves nothing. A
/// plain `cargo test` skips the test and says why.
pub fn missing(part: &str, remedy: &str) {
    assert!(
        std::env::var("WHARF_REQUIRE_REAL").as_deref() != Ok("1"),
        "{part} is missing, and WHARF_REQUIRE_REAL=1 asks for it: {remedy}"
    );
    eprintln!("left out: {part} is missing: {remedy}");
}
