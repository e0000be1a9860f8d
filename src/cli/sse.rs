//! Parses server-sent events (WHATWG HTML, "Server-sent events", "Interpreting an event stream").

/// Largest event, in bytes; wharf's events have a few hundred.
const MAX_EVENT: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The event's type; `message` if the server named none.
    pub(crate) name: String,
    /// The event's data lines, joined.
    pub(crate) data: String,
    /// The newest id on the stream up to this event.
    pub(crate) id: Option<String>,
}

/// An event exceeded [`MAX_EVENT`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Takes bytes as they arrive, and returns events as they become complete.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
}

impl Parser {
    /// Takes more bytes and returns the events that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Event>, TooLong> {
        let mut events = Vec::new();
        for byte in bytes {
            let is_second_half = std::mem::take(&mut self.after_return) && *byte == b'\n';
            match byte {
                b'\n' if is_second_half => {}
                b'\r' | b'\n' => {
                    self.after_return = *byte == b'\r';
                    events.extend(self.end_line());
                }
                _ => self.line.push(*byte),
            }
            if self.line.len() + self.data.as_ref().map_or(0, String::len) > MAX_EVENT {
                return Err(TooLong);
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_start_matches('\u{feff}');
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments and `retry` are ignored: the unit of `retry` differs between servers, and wharf has its own
            // pauses.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = self.data.take()?;
        let name = if name.is_empty() { "message".into() } else { name };
        Some(Event { name, data, id: self.id.clone() })
    }
}

#[cfg(test)]
mod tests {
    use crate::cli::sse::{Event, Parser, TooLong};

    fn event(name: &str, data: &str, id: Option<&str>) -> Event {
        Event { name: name.into(), data: data.into(), id: id.map(Into::into) }
    }

    #[test]
    fn events_come_out_however_the_bytes_are_cut_and_the_lines_end() {
        let stream = ": hello\nid: 1\nevent: bgtask_updated\nretry: 5\ndata: {\"a\":1}\n\n\
                      data:x\ndata\ndata: y\n\nevent: nothing\n\nid: 2\nevent: server_close\ndata: {}\n\n";
        let expected = [
            event("bgtask_updated", "{\"a\":1}", Some("1")),
            event("message", "x\n\ny", Some("1")),
            event("server_close", "{}", Some("2")),
        ];
        for ending in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', ending);
            for size in [1, 2, 3, 7, 1000] {
                let mut parser = Parser::default();
                let events: Vec<_> =
                    stream.as_bytes().chunks(size).flat_map(|bytes| parser.push(bytes).unwrap()).collect();
                assert_eq!(events, expected, "{ending:?} {size}");
            }
        }
    }

    #[test]
    fn an_unfinished_event_is_none() {
        assert_eq!(Parser::default().push(b"event: x\ndata: y\n"), Ok(vec![]));
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1000));
        assert!((0..2000).any(|_| parser.push(line.as_bytes()) == Err(TooLong)));
        assert_eq!(Parser::default().push(&vec![b'x'; 2 << 20]), Err(TooLong));
    }
}
