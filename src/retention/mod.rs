//! Retention: rules that take images off agents once they are old, unused or in the way.
//!
//! What may go from an agent at all is decided in `transfer::room`, whoever asks; a rule narrows that down. Its plan is a
//! function of one moment (`plan`), which a dry run shows; a round (`round`) makes an ordinary unload task of the same
//! plan.

pub(crate) mod plan;
mod round;
pub(crate) mod rule;
pub(crate) mod service;
