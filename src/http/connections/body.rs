//! Bodies under a connection's watch: a request's body must keep coming, and the end of a response's body is noticed.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use crate::http::connections::watch::Watch;

/// How long [`PIECE`], or the end, of a body may take to come: no line is that slow, and the largest body is 256 KiB.
const PATIENCE: Duration = Duration::from_secs(15);
const PIECE: usize = 1024;

type Inner = BoxBody<Bytes, io::Error>;

/// The body of a request. Reading fails with [`io::ErrorKind::TimedOut`] when it comes too slowly.
pub(super) struct Arriving {
    inner: Inner,
    watch: Arc<Watch>,
    /// How many bytes of the current piece have come.
    piece: usize,
    timer: Pin<Box<Sleep>>,
    is_whole: bool,
}

impl Arriving {
    pub(super) fn new(inner: Inner, watch: Arc<Watch>) -> Self {
        let timer = Box::pin(tokio::time::sleep(PATIENCE));
        Self { inner, watch, piece: 0, timer, is_whole: false }
    }

    fn came(&mut self, bytes: usize) {
        self.piece += bytes;
        if self.piece >= PIECE {
            self.piece = 0;
            self.timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.came(frame.data_ref().map_or(0, Bytes::len));
                self.is_whole = self.inner.is_end_stream();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(end) => {
                self.is_whole = end.is_none();
                Poll::Ready(end)
            }
            Poll::Pending => self.timer.as_mut().poll(cx).map(|()| Some(Err(io::ErrorKind::TimedOut.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.watch.body_ended(self.is_whole);
    }
}

/// The body of a response. When it ends, the request is answered.
pub(super) struct Leaving {
    inner: Inner,
    watch: Arc<Watch>,
}

impl Leaving {
    pub(super) fn new(inner: Inner, watch: Arc<Watch>) -> Self {
        Self { inner, watch }
    }
}

impl Body for Leaving {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.watch.answered();
    }
}
