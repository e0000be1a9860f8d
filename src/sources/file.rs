//! Files, read as streams.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

/// How many bytes are read from disk at once.
pub(crate) const PIECE: usize = 256 * 1024;

/// Streams `length` bytes of a file from byte `first` on, read as they are needed.
pub(crate) fn pieces(file: File, first: u64, length: u64) -> BoxStream<'static, io::Result<Bytes>> {
    struct Reading {
        file: File,
        seek: Option<u64>,
        left: u64,
    }
    let begun = Reading { file, seek: (first > 0).then_some(first), left: length };
    stream::unfold(Some(begun), async |reading| {
        let mut reading = reading.filter(|reading| reading.left > 0)?;
        let read = tokio::task::spawn_blocking(move || {
            if let Some(first) = reading.seek.take() {
                reading.file.seek(SeekFrom::Start(first))?;
            }
            let most = usize::try_from(reading.left).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; most];
            reading.file.read_exact(&mut piece)?;
            reading.left -= u64::try_from(most).unwrap_or(reading.left);
            Ok((Bytes::from(piece), reading))
        });
        match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((piece, reading)) => Some((Ok(piece), Some(reading))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}
