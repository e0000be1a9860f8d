//! Values without I/O that every other module may use: names, ids, secrets and the error type.

pub mod agent_name;
pub(crate) mod arch;
pub(crate) mod backoff;
pub(crate) mod bits;
pub mod clock;
pub mod digest;
pub(crate) mod docker_hub;
pub(crate) mod error;
pub mod identity;
pub mod ids;
pub(crate) mod keyed;
pub(crate) mod lines;
pub(crate) mod loopback;
pub(crate) mod reference;
pub mod secret;
pub(crate) mod signal;
pub(crate) mod slots;
pub(crate) mod turns;
pub(crate) mod walk;

pub(crate) use error::{Error, Result};
