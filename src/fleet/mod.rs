//! The nodes of a lab: what each holds, how each is reached, and how an admin names a set of them.
//!
//! A set is written as `gpu[01-16],@lab2!{zone=a}`: the syntax that admins know from Slurm and ClusterShell, with
//! Kubernetes' label selectors in braces. Unions come first and filters after, so `A,B & X ! Y` is `((A ∪ B) ∩ X) \
//! Y`; any other order needs parentheses. A name that no agent has is an error wherever it occurs: a typo in an
//! exclusion would otherwise load the image on the very node that was to be left out.
//!
//! Evaluation is pure: text and an inventory go in, names come out.

pub(crate) mod agent;
pub(crate) mod alive_groups;
pub mod error;
pub mod evaluate;
pub mod expression;
pub mod fold;
pub(crate) mod index;
pub(crate) mod labels;
pub(crate) mod links;
mod pace;
pub(crate) mod parser;
pub mod pattern;
pub(crate) mod peer;
pub mod presence;
mod remote;
pub mod selector;
pub mod service;
pub(crate) mod session;
pub(crate) mod usage;
pub(crate) mod watch;
