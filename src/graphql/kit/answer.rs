//! A response as JSON text, in pieces: the lists that [`Later`] keeps are written while the client reads them.
//!
//! The whole catalog of a large lab is some 200 MB of JSON. If it were written whole before the first byte is sent,
//! the server would hold it once for every client that asks. A request therefore holds only references to the images.

use std::iter;
use std::sync::Arc;

use async_graphql::{Response, ServerError, Value};
use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::turns::Turn;

/// JSON that is not written yet, in order.
pub(crate) type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// The lists that one request's resolvers leave to be written with its response. It travels with the request as data.
#[derive(Clone, Default)]
pub struct Later(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    pieces: Vec<Pieces>,
    /// Kept with the response until the response is sent or the client stops reading it.
    turn: Option<Turn>,
}

impl Later {
    /// Keeps these pieces and returns a value that stands for them in the response. Only this function makes a
    /// [`Value::Binary`].
    pub(in crate::graphql) fn keep(&self, pieces: Pieces) -> Value {
        let kept = &mut self.0.lock().pieces;
        kept.push(pieces);
        Value::Binary(Bytes::copy_from_slice(&(kept.len() - 1).to_le_bytes()))
    }

    /// Ties `turn` to the response in memory: the turn ends when the response is sent.
    pub(in crate::graphql) fn hold(&self, turn: Turn) {
        self.0.lock().turn = Some(turn);
    }

    fn take(&self, mark: &[u8]) -> Option<Pieces> {
        let place = usize::from_le_bytes(mark.try_into().ok()?);
        Some(std::mem::replace(self.0.lock().pieces.get_mut(place)?, Box::new(iter::empty())))
    }
}

/// Returns the response in the form of the GraphQL-over-HTTP spec: `{"data": ..., "errors": [...]}`.
pub fn envelope(response: &Response, later: &Later) -> impl Iterator<Item = Bytes> + Send + use<> {
    let mut out = Writing::new(later);
    out.text.extend_from_slice(b"{\"data\":");
    out.value(&response.data);
    if !response.errors.is_empty() {
        out.text.extend_from_slice(b",\"errors\":");
        out.json(&response.errors);
    }
    out.text.push(b'}');
    out.finish()
}

/// Returns the answer to a request that was refused before anything was done: it has no data, not even null.
pub(crate) fn refusal(errors: &[ServerError]) -> Bytes {
    let mut text = b"{\"errors\":".to_vec();
    // Writing to a vector can't fail; the types here always serialise.
    let _ = serde_json::to_writer(&mut text, errors);
    text.push(b'}');
    text.into()
}

/// Returns the data alone, as the oldest clients want it.
pub(crate) fn bare(response: &Response, later: &Later) -> impl Iterator<Item = Bytes> + Send + use<> {
    let mut out = Writing::new(later);
    out.value(&response.data);
    out.finish()
}

/// The text of a response: the text already written, and the pieces to insert.
struct Writing<'a> {
    done: Vec<Pieces>,
    text: Vec<u8>,
    later: &'a Later,
}

impl<'a> Writing<'a> {
    fn new(later: &'a Later) -> Self {
        Self { done: Vec::new(), text: Vec::new(), later }
    }

    fn finish(mut self) -> impl Iterator<Item = Bytes> + Send + use<> {
        self.cut();
        let turn = self.later.0.lock().turn.take();
        let end = iter::from_fn(move || {
            let _held = &turn;
            None
        });
        self.done.into_iter().flatten().chain(end)
    }

    /// Ends the current piece of text.
    fn cut(&mut self) {
        let text = Bytes::from(std::mem::take(&mut self.text));
        self.done.push(Box::new(iter::once(text)));
    }

    fn value(&mut self, given: &Value) {
        match given {
            Value::Binary(mark) => match self.later.take(mark) {
                Some(pieces) => {
                    self.cut();
                    self.done.push(pieces);
                }
                None => self.json(&Value::Null),
            },
            Value::List(items) => {
                self.text.push(b'[');
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        self.text.push(b',');
                    }
                    self.value(item);
                }
                self.text.push(b']');
            }
            Value::Object(fields) => {
                self.text.push(b'{');
                for (number, (name, field)) in fields.iter().enumerate() {
                    if number > 0 {
                        self.text.push(b',');
                    }
                    self.json(name.as_str());
                    self.text.push(b':');
                    self.value(field);
                }
                self.text.push(b'}');
            }
            leaf => self.json(leaf),
        }
    }

    fn json<T: serde::Serialize + ?Sized>(&mut self, given: &T) {
        // Writing to a vector can't fail; the types here always serialise.
        let _ = serde_json::to_writer(&mut self.text, given);
    }
}
