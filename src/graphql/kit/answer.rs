//! A response as JSON text, the lists that are JSON already written out as they are.

use async_graphql::{Response, Value};
use bytes::Bytes;

/// The response as the GraphQL-over-HTTP spec has it: `{"data": ..., "errors": [...]}`.
pub fn envelope(response: &Response) -> Bytes {
    let mut out = b"{\"data\":".to_vec();
    value(&response.data, &mut out);
    if !response.errors.is_empty() {
        out.extend_from_slice(b",\"errors\":");
        json(&response.errors, &mut out);
    }
    out.push(b'}');
    out.into()
}

/// The data alone, as the oldest clients want it.
pub fn bare(response: &Response) -> Bytes {
    let mut out = Vec::new();
    value(&response.data, &mut out);
    out.into()
}

fn value(given: &Value, out: &mut Vec<u8>) {
    match given {
        Value::Binary(written) => out.extend_from_slice(written),
        Value::List(items) => {
            out.push(b'[');
            for (number, item) in items.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                value(item, out);
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            out.push(b'{');
            for (number, (name, field)) in fields.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                json(name.as_str(), out);
                out.push(b':');
                value(field, out);
            }
            out.push(b'}');
        }
        leaf => json(leaf, out),
    }
}

fn json<T: serde::Serialize + ?Sized>(given: &T, out: &mut Vec<u8>) {
    // Writing to a vector can't fail; the types here always serialise.
    let _ = serde_json::to_writer(out, given);
}
