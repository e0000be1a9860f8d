//! The fleet as a whole: many agents, of all kinds, some of them in trouble.

mod crowd;
mod lab;
mod standing;
mod trouble;
