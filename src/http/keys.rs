//! Backend.AI's configuration keys: paths whose components are percent-encoded, read one by one or as a tree of all
//! keys that begin with the same characters.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::base::{Error, Result};

/// Returns the components of a key, decoded. `cr.io:5000` and `cr.io%3A5000` name the same component.
pub(crate) fn components(key: &str) -> Vec<String> {
    key.split('/').map(|component| unquote(component).into_owned()).collect()
}

/// Returns a key in its stored form, from its components.
pub(crate) fn join<'a>(components: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = components.into_iter().map(quote).collect();
    quoted.join("/")
}

/// Returns a key in its stored form, however it was typed.
pub(crate) fn normal(key: &str) -> String {
    join(components(key).iter().map(String::as_str))
}

/// Returns all keys that begin with these characters, as a tree of the rest. A key that has both a value and keys
/// below it has its value under the empty name.
pub(crate) fn tree(start: &str, pairs: &[(String, String)]) -> Map<String, Value> {
    let mut tree = Map::new();
    for (key, value) in pairs {
        if let Some(rest) = key.strip_prefix(start) {
            let path = components(rest.strip_prefix('/').unwrap_or(rest));
            plant(&mut tree, &path, value);
        }
    }
    tree
}

fn plant(tree: &mut Map<String, Value>, path: &[String], value: &str) {
    let Some((name, below)) = path.split_first() else { return };
    let place = tree.entry(name.as_str()).or_insert(Value::Null);
    match (place, below.is_empty()) {
        (Value::Object(children), true) => {
            children.insert(String::new(), value.into());
        }
        (place, true) => *place = value.into(),
        (Value::Object(children), false) => plant(children, below, value),
        (place, false) => {
            let mut children = Map::new();
            if let Value::String(own) = place {
                children.insert(String::new(), std::mem::take(own).into());
            }
            plant(&mut children, below, value);
            *place = Value::Object(children);
        }
    }
}

/// Returns the pairs to set: the key with a plain value, or one pair for each leaf of a tree like that of [`tree`].
pub(crate) fn leaves(key: &str, value: &Value) -> Result<Vec<(String, String)>> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        // The official clients parse typed text as JSON if they can, so `0042` arrives whole and `1e3` does not.
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        Value::Number(number) => {
            let why =
                format!("{number} was read as a number on its way here; put it in quotes: '\"{number}\"'");
            return Err(Error::invalid("value", why));
        }
        Value::Object(children) => {
            let mut found = Vec::new();
            for (name, value) in children {
                let below = if name.is_empty() { key.to_owned() } else { format!("{key}/{}", quote(name)) };
                found.extend(leaves(&below, value)?);
            }
            return Ok(found);
        }
        Value::Null | Value::Array(_) => {
            return Err(Error::invalid("value", "it must be a text, or a JSON object of texts"));
        }
    };
    Ok(vec![(normal(key), text)])
}

/// Percent-encodes all characters except those that RFC 3986 leaves unreserved.
fn quote(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut quoted, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            quoted.push(char::from(byte));
        } else {
            let _ = write!(quoted, "%{byte:02X}");
        }
        quoted
    })
}

/// Undoes [`quote`]; a `%` that begins no escape stays as it is.
fn unquote(text: &str) -> Cow<'_, str> {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == text.len() {
        return text.into();
    }
    let mut bytes = first.as_bytes().to_vec();
    for part in parts {
        let escape = part.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        if let Some(byte) = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            bytes.push(byte);
            bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
        } else {
            bytes.push(b'%');
            bytes.extend_from_slice(part.as_bytes());
        }
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{components, leaves, normal, tree};

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|&(key, value)| (key.into(), value.into())).collect()
    }

    #[test]
    fn a_key_may_be_typed_encoded_or_not() {
        for typed in ["a/cr.io:5000/b", "a/cr.io%3A5000/b", "a/cr.io%3a5000/b"] {
            assert_eq!(normal(typed), "a/cr.io%3A5000/b");
            assert_eq!(components(typed), ["a", "cr.io:5000", "b"]);
        }
        assert_eq!(components("50%/%zz/%"), ["50%", "%zz", "%"]);
        assert_eq!(components("%ED%95%9C"), ["한"]);
    }

    #[test]
    fn a_tree_holds_a_keys_own_value_under_the_empty_name() {
        let kept = pairs(&[("r/a", "A"), ("r/a/type", "docker"), ("r/ab", "B"), ("x", "X")]);
        assert_eq!(Value::from(tree("r", &kept)), json!({"a": {"": "A", "type": "docker"}, "ab": "B"}));
        assert_eq!(Value::from(tree("r/a", &kept)), json!({"": "A", "type": "docker", "b": "B"}));
        assert_eq!(Value::from(tree("nothing", &kept)), json!({}));
        let reversed: Vec<_> = kept.iter().rev().cloned().collect();
        assert_eq!(tree("r", &kept), tree("r", &reversed), "in whichever order they come");
    }

    #[test]
    fn a_tree_to_be_set_comes_to_its_leaves() {
        let value = json!({"": "https://a", "username": "u", "project": 7, "deep": {"ssl": false}});
        let expected = pairs(&[
            ("r/a", "https://a"),
            ("r/a/deep/ssl", "false"),
            ("r/a/project", "7"),
            ("r/a/username", "u"),
        ]);
        assert_eq!(leaves("r/a", &value).unwrap(), expected);
        for wrong in [json!(null), json!(["a"]), json!({"a": null}), json!(1.5)] {
            assert!(leaves("r", &wrong).is_err(), "{wrong}");
        }
    }
}
