//! A strict reader of server-sent events: events that would upset the official clients' parser fail the test.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::wait::PATIENCE;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: Option<String>,
    pub name: String,
    /// Their parsers decode the data of every event, so the data must be JSON.
    pub data: Value,
    /// In seconds, as those clients read it.
    pub retry: Option<u64>,
    /// The time between the headers and the event.
    pub after: Duration,
}

impl Event {
    /// Whether it is the last event of a task: done, failed or cancelled.
    pub fn is_final(&self) -> bool {
        ["done", "failed", "cancelled"].iter().any(|end| self.name.ends_with(end))
    }

    pub fn number(&self, field: &str) -> u64 {
        let number = self.data[field].as_f64().filter(|n| *n >= 0.0);
        let number = number.unwrap_or_else(|| panic!("{field} is no number in {self:?}"));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "progress is a small count, and not negative as just checked"
        )]
        let whole = number as u64;
        whole
    }
}

/// The stream of a task.
#[derive(Debug)]
pub struct Events {
    response: reqwest::Response,
    opened: Instant,
    pending: Vec<u8>,
}

impl Events {
    /// Returns the stream of a response whose headers have just come.
    pub fn new(response: reqwest::Response) -> Self {
        Self { response, opened: Instant::now(), pending: Vec::new() }
    }

    /// Returns the next event, or nothing once the server has closed the stream.
    pub async fn next(&mut self) -> Option<Event> {
        let mut fields: Vec<(String, String)> = Vec::new();
        while let Some(line) = self.line().await {
            if line.is_empty() {
                if let Some(event) = self.dispatch(std::mem::take(&mut fields)) {
                    return Some(event);
                }
            } else if !line.starts_with(':') {
                let (name, value) = line.split_once(':').unwrap_or_else(|| {
                    panic!("a line without a colon poisons the clients' parser: {line:?}")
                });
                fields.push((name.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()));
            }
        }
        assert!(fields.is_empty(), "the stream ends within an event: {fields:?}");
        None
    }

    /// All events up to the end of the stream.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(event);
        }
        all
    }

    fn dispatch(&self, fields: Vec<(String, String)>) -> Option<Event> {
        if fields.is_empty() {
            return None;
        }
        let (mut id, mut name, mut retry, mut data) = (None, String::new(), None, Vec::new());
        for (field, value) in fields {
            match field.as_str() {
                "id" => id = Some(value),
                "event" => name = value,
                "retry" => retry = Some(value.parse().expect("retry is a number")),
                "data" => data.push(value),
                other => panic!("an unknown field {other:?}"),
            }
        }
        let data = data.join("\n");
        let data =
            serde_json::from_str(&data).unwrap_or_else(|e| panic!("the data of {name}: {e}: {data:?}"));
        Some(Event { id, name, data, retry, after: self.opened.elapsed() })
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = String::from_utf8(line).expect("events are UTF-8");
                return Some(line.trim_end_matches(['\r', '\n']).to_owned());
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            // A killed server cuts the stream; for a reader that is its end.
            match chunk.expect("an event or a keep-alive in time") {
                Ok(Some(bytes)) => self.pending.extend_from_slice(&bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }
}
