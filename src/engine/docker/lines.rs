//! Reads the endless answers of Docker Engine line by line: pulls and events.

use bollard::errors::Error;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::engine::{
    docker::fault::broken,
    fault::{Class, Fault},
};

/// The longest line that is read, in bytes. Docker's own are under 1 KiB; an error that quotes a registry's page may be
/// longer.
const MAX_LINE: usize = 1024 * 1024;

/// An answer with one JSON document per line.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
    /// How many bytes at the start of `buffer` are known to contain no line end.
    searched: usize,
    ended: bool,
}

impl Lines {
    pub(crate) fn new(body: Incoming) -> Self {
        Self { body, buffer: Vec::new(), searched: 0, ended: false }
    }

    /// The next document; `None` at the end. If the future is dropped, no received bytes are lost.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Fault> {
        loop {
            match self.line() {
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(line) => return read(&line).map(Some),
                None if self.ended => return Ok(None),
                None => self.more().await?,
            }
        }
    }

    /// The next whole line of the received bytes, or the rest of them at the end of the answer.
    fn line(&mut self) -> Option<Vec<u8>> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        if let Some(end) = fresh.iter().position(|&byte| byte == b'\n') {
            let rest = self.buffer.split_off(self.searched + end + 1);
            self.searched = 0;
            return Some(std::mem::replace(&mut self.buffer, rest));
        }
        self.searched = self.buffer.len();
        (self.ended && !self.buffer.is_empty()).then(|| {
            self.searched = 0;
            std::mem::take(&mut self.buffer)
        })
    }

    async fn more(&mut self) -> Result<(), Fault> {
        match self.body.frame().await {
            None => self.ended = true,
            Some(Err(error)) => return Err(broken(&Error::from(error))),
            Some(Ok(frame)) => {
                let bytes = frame.into_data().unwrap_or_default();
                // Only an unended line counts: a chunk may hold many short lines.
                let unended = match bytes.iter().rposition(|&byte| byte == b'\n') {
                    Some(end) => bytes.len() - end,
                    None => self.buffer.len() + bytes.len(),
                };
                self.buffer.extend_from_slice(&bytes);
                if unended > MAX_LINE {
                    return Err(Fault::new(
                        Class::Other,
                        format!("the engine sent a line of more than {MAX_LINE} bytes"),
                    ));
                }
            }
        }
        Ok(())
    }
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, Fault> {
    if line.len() > MAX_LINE {
        return Err(Fault::new(
            Class::Other,
            format!("the engine sent a line of more than {MAX_LINE} bytes"),
        ));
    }
    serde_json::from_slice(line).map_err(|error| {
        let start = String::from_utf8_lossy(line.get(..80).unwrap_or(line)).into_owned();
        Fault::new(Class::Other, format!("the engine sent a line that can't be read: {error}: {start:?}"))
    })
}
