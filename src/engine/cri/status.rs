//! The status of a gRPC call, and its conversion to a fault.

use crate::engine::fault::{Class, Fault};

/// The gRPC codes that say more than their message.
const CANCELLED: u16 = 1;
const DEADLINE_EXCEEDED: u16 = 4;
const NOT_FOUND: u16 = 5;
const UNIMPLEMENTED: u16 = 12;
const UNAVAILABLE: u16 = 14;

/// How a call ended; without a code if the engine did not say.
#[derive(Debug, Default)]
pub(crate) struct Status {
    pub(crate) code: Option<u16>,
    pub(crate) message: String,
}

impl Status {
    /// Success, or the fault.
    pub(crate) fn check(self) -> Result<(), Fault> {
        let said = self.message.as_str();
        let Some(code) = self.code else {
            // Whether the call was carried out is not known.
            return Err(Fault::new(Class::EngineGone, "the engine ended its answer without a status"));
        };
        match code {
            0 => Ok(()),
            UNIMPLEMENTED => Err(Fault::new(
                Class::Other,
                format!(
                    "{said}; it takes containerd 1.6 or newer whose configuration does not have cri in \
                     disabled_plugins"
                ),
            )),
            UNAVAILABLE => Err(Fault::new(Class::EngineGone, said)),
            _ if said.is_empty() => {
                Err(Fault::new(by_code(code), format!("the engine gave up with code {code} and no reason")))
            }
            _ => {
                let told = Fault::told(said);
                let class = if told.class == Class::Other { by_code(code) } else { told.class };
                Err(Fault { class, ..told })
            }
        }
    }
}

fn by_code(code: u16) -> Class {
    match code {
        CANCELLED => Class::Stopped,
        DEADLINE_EXCEEDED => Class::Network,
        NOT_FOUND => Class::NotFound,
        _ => Class::Other,
    }
}

/// A fault for an answer that makes no sense.
pub(crate) fn unreadable(why: &str) -> Fault {
    Fault::new(Class::Other, format!("the engine's answer can't be read: {why}"))
}
