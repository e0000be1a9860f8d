//! A connection's socket under its watch: it fails when its time is over, and closes so that its last words arrive.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::http::connections::watch::Watch;

/// The beginning of HTTP/2 (RFC 9113, 3.4). A part of it is enough, because no method of ours begins like it.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";
/// What an HTTP/2 client understands: our settings, which are empty, and GOAWAY with `HTTP_1_1_REQUIRED`.
const GO_AWAY: [u8; 26] = [
    0, 0, 0, 4, 0, 0, 0, 0, 0, // SETTINGS, empty
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x0d,
];
/// How long bytes that still come are read and discarded after our last words: closing a socket with unread bytes
/// sends a reset, which discards the last words.
const FAREWELL: Duration = Duration::from_secs(1);

/// A socket under a watch.
pub(super) struct Socket {
    stream: TcpStream,
    watch: Arc<Watch>,
    timer: Option<Pin<Box<Sleep>>>,
    is_first: bool,
    /// Whether the client began with HTTP/2, so that nothing more is read.
    is_refused: bool,
    /// When the farewell ends.
    leaves: Option<Instant>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self { stream, watch, timer: None, is_first: true, is_refused: false, leaves: None }
    }

    /// Returns pending, to be woken at the deadline, or the error that the deadline has passed.
    fn wait<T>(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<io::Result<T>> {
        let Some(deadline) = deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads and discards until the other side closes or the farewell ends.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let leaves = *self.leaves.get_or_insert_with(|| Instant::now() + FAREWELL);
        let mut room = [0; 4096];
        while Instant::now() < leaves {
            let mut buffer = ReadBuf::new(&mut room);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let _ = ready!(self.wait::<()>(cx, Some(leaves)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_refused {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Ready(Ok(())) => {
                let came = buffer.filled().get(before..).unwrap_or_default();
                if came.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                self.watch.came();
                if std::mem::take(&mut self.is_first) && came.starts_with(PREFACE) {
                    // The socket's buffer is empty, so everything fits.
                    let _ = self.stream.try_write(&GO_AWAY);
                    self.is_refused = true;
                    buffer.set_filled(before);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                let deadline = self.watch.must_come_by();
                self.wait(cx, deadline)
            }
            failed @ Poll::Ready(Err(_)) => failed,
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.leaves.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.is_refused || self.watch.is_unread() { self.poll_farewell(cx) } else { Poll::Ready(Ok(())) }
    }
}

impl Socket {
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Pending => {
                let deadline = self.watch.must_go_by();
                self.wait(cx, deadline)
            }
            Poll::Ready(result) => {
                self.watch.went();
                Poll::Ready(result)
            }
        }
    }
}
