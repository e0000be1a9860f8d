//! The labels of agents.

use std::collections::BTreeMap;

use crate::base::reference::shown;
use crate::base::{Error, Result};

/// How many labels an agent may have.
const MAX_LABELS: usize = 64;

/// Sets labels; an empty value removes one.
///
/// # Errors
/// A key or value that is not a label's, or too many labels.
pub(crate) fn set_labels(
    labels: &mut BTreeMap<String, String>,
    new: Option<BTreeMap<String, String>>,
) -> Result<()> {
    for (key, value) in new.unwrap_or_default() {
        check_label(&key, &value)?;
        if value.is_empty() {
            labels.remove(&key);
        } else {
            labels.insert(key, value);
        }
    }
    if labels.len() > MAX_LABELS {
        return Err(Error::invalid("labels", format!("an agent may have {MAX_LABELS} at most")));
    }
    Ok(())
}

/// Checks a label against Kubernetes' syntax, as selectors use it; the built-in keys are reserved.
fn check_label(key: &str, value: &str) -> Result<()> {
    const BUILT_IN: [&str; 6] = ["name", "status", "engine", "arch", "os", "scaling_group"];
    if BUILT_IN.contains(&key) {
        return Err(Error::invalid(
            "labels",
            format!("{key} is built in; choose another key, such as lab.example/{key}"),
        ));
    }
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain = |text: &str| {
        text.len() <= 253 && text.split('.').all(|part| is_label_name(part) && !part.contains(['_', '.']))
    };
    if !is_label_name(name) || !prefix.is_none_or(is_domain) {
        return Err(Error::invalid(
            "labels",
            format!("{:?} is no label key, such as lab.example/rack", shown(key)),
        ));
    }
    if !(value.is_empty() || is_label_name(value)) {
        let why = "a value may have 63 letters, digits, '-', '_' and '.', and begins and ends with one of the first two";
        return Err(Error::invalid("labels", format!("{key}: {why}")));
    }
    Ok(())
}

fn is_label_name(text: &str) -> bool {
    let ends_well = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && ends_well(text.bytes().next())
        && ends_well(text.bytes().next_back())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
