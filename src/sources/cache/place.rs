//! Where a cache is, as its operator says it.

use std::path::PathBuf;

use crate::engine::address::bytes;

/// The bytes that a cache keeps if its operator does not say.
const DEFAULT_MAX: u64 = 100 << 30;

/// Where a cache is, how large it may become, and whom it serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachePlace {
    /// The directory, as an absolute path.
    pub(crate) path: PathBuf,
    /// The most bytes that it keeps.
    pub(crate) max: u64,
    /// The site that it serves; empty for the machines without one.
    pub(crate) site: String,
}

impl CachePlace {
    /// Reads `DIR`, `DIR?max=200GiB`, `DIR?max=200GiB&site=NAME`.
    ///
    /// # Errors
    /// A text that is none of these; the message has the remedy.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, settings) = text.split_once('?').unwrap_or((text, ""));
        if path.is_empty() || path.contains('\0') {
            return Err("name a directory, as in /var/cache/wharf?max=200GiB".into());
        }
        let path = std::path::absolute(path).map_err(|error| error.to_string())?;
        let mut place = Self { path, max: DEFAULT_MAX, site: String::new() };
        for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
            match setting.split_once('=') {
                Some(("max", max)) => {
                    let why = "max is the most bytes that it keeps, as in max=200GiB";
                    place.max = bytes(max).ok_or(why)?.get();
                }
                Some(("site", site)) if !site.is_empty() => site.clone_into(&mut place.site),
                _ => {
                    return Err(format!(
                        "{setting:?} is no setting of a cache; there are max=200GiB and site=NAME"
                    ));
                }
            }
        }
        Ok(place)
    }
}
