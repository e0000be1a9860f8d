//! Values without I/O that every other module may use: names, ids, secrets and the error type.

pub mod agent_name;
pub mod arch;
pub mod backoff;
pub mod bits;
pub mod clock;
pub mod digest;
pub mod docker_hub;
pub mod error;
pub mod ids;
pub mod keyed;
pub mod lines;
pub mod loopback;
pub mod reference;
pub mod secret;
pub mod signal;
pub mod slots;
pub mod walk;

pub use error::{Error, Result};
