//! JSON in and out: reads answers leniently, and always writes the same keys.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::Value;

use crate::cli::{
    self,
    failure::{Failure, Result},
};

/// Prints a value for scripts, without characters that a terminal would obey.
pub(crate) fn print(value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::failed("output", error.to_string()))?;
    cli::print(&cli::text::json(&text))
}

/// Reads a count. Depending on the field's scalar, servers send a whole number, a float, a string or null.
pub(crate) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    let count = match value {
        None => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(Value::Number(number)) => number.as_u64().or_else(|| whole(number.as_f64()?)),
        Some(_) => None,
    };
    count.ok_or_else(|| de::Error::custom("expected a count"))
}

fn whole(number: f64) -> Option<u64> {
    format!("{number:.0}").parse().ok()
}

/// Reads a list; the list or its entries may be null.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let values = Option::<Vec<Option<T>>>::deserialize(deserializer)?;
    Ok(values.unwrap_or_default().into_iter().flatten().collect())
}

/// An answer that is a list, read with [`list`].
#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
pub(crate) struct List<T>(#[serde(deserialize_with = "list")] pub(crate) Vec<T>);

/// Reads a text that may be null.
pub(crate) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Row {
        #[serde(deserialize_with = "super::count")]
        count: u64,
        #[serde(deserialize_with = "super::list")]
        list: Vec<String>,
    }

    #[test]
    fn counts_and_lists_are_read_leniently() {
        for (given, expected) in
            [("7", 7), ("7.0", 7), ("\"7\"", 7), ("null", 0), ("5000000000", 5_000_000_000)]
        {
            let row: Row = serde_json::from_str(&format!("{{\"count\": {given}, \"list\": null}}")).unwrap();
            assert_eq!(row.count, expected, "{given}");
        }
        for bad in ["-1", "true", "\"x\"", "[]"] {
            assert!(
                serde_json::from_str::<Row>(&format!("{{\"count\": {bad}, \"list\": []}}")).is_err(),
                "{bad}"
            );
        }
        let row: Row = serde_json::from_str(r#"{"count": 0, "list": ["a", null]}"#).unwrap();
        assert_eq!(row.list, ["a"]);
    }
}
