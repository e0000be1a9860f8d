//! gRPC calls over a socket, one connection each: a request of one message, an answer of one message and a status.
//!
//! gRPC over HTTP/2 (`PROTOCOL-HTTP2.md` of the gRPC project) needs little more than a five-byte head before each
//! message and a status in the trailers. A connection per call means that dropping a call closes it, which tells the
//! engine that a pull is no longer wanted.

use std::path::PathBuf;

use bytes::{BufMut as _, Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, client::conn::http2, header::CONTENT_TYPE};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::engine::{
    cri::status::{Status, unreadable},
    fault::{Class, Fault},
};

/// The largest answer that is read, in bytes. 10,000 images with long names take about 5 MiB.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// The bytes before each message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// The namespace that containerd keeps Kubernetes' images in. CRI itself ignores it.
const NAMESPACE: (&str, &str) = ("containerd-namespace", "k8s.io");

/// A client for an engine's socket.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) socket: PathBuf,
}

impl Line {
    /// Calls a method (`/runtime.v1.ImageService/ListImages`) and reads its whole answer.
    pub(crate) async fn call<Q, A>(&self, method: &str, question: &Q) -> Result<A, Fault>
    where
        Q: Message,
        A: Message + Default,
    {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| Fault::broken(&error))?;
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| Fault::broken(&error))?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "connection to the engine");
            }
        }));
        let request = Request::post(format!("http://localhost{method}"))
            .header(CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .header(NAMESPACE.0, NAMESPACE.1)
            .body(Full::new(framed(question)))
            .map_err(|error| Fault::new(Class::Other, error.to_string()))?;
        let answer = sender.send_request(request).await.map_err(|error| Fault::broken(&error))?;
        let (head, body) = answer.into_parts();
        if !head.status.is_success() {
            return Err(Fault::new(Class::Other, format!("the engine answered {}; is it CRI?", head.status)));
        }
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| cut_off(error.as_ref()))?;
        let ended = body.trailers().and_then(Status::read);
        // A refusal without a message has its status in the head.
        let status = ended.or_else(|| Status::read(&head.headers)).unwrap_or_default();
        status.check()?;
        unframed(body.to_bytes())
    }
}

fn cut_off(error: &(dyn std::error::Error + Send + Sync + 'static)) -> Fault {
    if error.is::<LengthLimitError>() {
        return Fault::new(Class::Other, "the engine's answer is too long to be true");
    }
    Fault::broken(error)
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(HEAD + length);
    bytes.put_u8(0);
    // Our requests are a few hundred bytes, so this always fits.
    bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    bytes.put_slice(&message.encode_to_vec());
    bytes.freeze()
}

fn unframed<A: Message + Default>(mut bytes: Bytes) -> Result<A, Fault> {
    if bytes.len() < HEAD {
        return Err(unreadable("it has no message"));
    }
    let head = bytes.split_to(HEAD);
    let length = head.iter().skip(1).fold(0_usize, |length, &byte| length << 8 | usize::from(byte));
    if head.first() != Some(&0) {
        return Err(unreadable("it is compressed, which we did not ask for"));
    }
    if bytes.len() != length {
        return Err(unreadable("its length is not what it says"));
    }
    A::decode(bytes).map_err(|error| unreadable(&error.to_string()))
}

impl Status {
    /// The status in a head or in trailers, if they have one.
    fn read(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let code = text("grpc-status")?.parse().ok();
        Some(Self { code, message: unescaped(&text("grpc-message").unwrap_or_default()) })
    }
}

/// Decodes percent-encoding, as gRPC uses it in messages; text that is not an escape stays as it is.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let escaped = digits.and_then(|two| u8::from_str_radix(two, 16).ok()).filter(|_| first == b'%');
        bytes.push(escaped.unwrap_or(first));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::unescaped;

    #[test]
    fn messages_are_unescaped() {
        for (given, expected) in
            [("a%20b%22", "a b\""), ("100%", "100%"), ("%zz%4", "%zz%4"), ("%C3%A4+", "\u{e4}+"), ("", "")]
        {
            assert_eq!(unescaped(given), expected, "{given}");
        }
    }
}
