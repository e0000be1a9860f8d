//! WebSocket connections that carry messages of a bounded size, for both ends of the link.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::Error as SocketError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message, Role, WebSocketConfig};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::engine::fault::one_line;

/// The read buffer of each connection, in bytes. There may be thousands of connections, and most are quiet most of
/// the time.
const READ_BUFFER: usize = 4 * 1024;

/// Why a connection can no longer be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The other side closed it, or the network did.
    #[error("{0}")]
    Closed(String),
    /// The other side sent something that is no message or is too large.
    #[error("{0}")]
    Malformed(String),
    /// The address has no link; holds what answered instead.
    #[error("{0}")]
    NoLink(String),
}

/// What a connection received.
#[derive(Debug)]
pub struct Received<M> {
    /// The message; none for a ping or a pong.
    pub message: Option<M>,
    /// How many bytes it had.
    pub(crate) bytes: usize,
}

/// A connection.
pub struct Socket<S> {
    inner: WebSocketStream<S>,
    role: Role,
}

/// The half that sends.
pub struct Sender<S>(SplitSink<WebSocketStream<S>, Message>);

/// The half that receives.
pub struct Receiver<S>(SplitStream<WebSocketStream<S>>);

/// Returns what a server answers to the key of a client that wants a WebSocket (RFC 6455, 4.2.2).
pub(crate) fn accept_key(key: &str) -> String {
    derive_accept_key(key.as_bytes())
}

fn limits(most: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(most.saturating_mul(4))
        .max_message_size(Some(most))
        .max_frame_size(Some(most))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// The server's end, once the HTTP upgrade is done. `most` is the largest message, in bytes.
    pub(crate) async fn server(stream: S, most: usize) -> Self {
        let inner = WebSocketStream::from_raw_socket(stream, Role::Server, Some(limits(most))).await;
        Self { inner, role: Role::Server }
    }

    /// The client's end: asks for a link at this URL, over an open connection to its host.
    ///
    /// # Errors
    /// [`Broken::NoLink`] with what the server answered instead.
    pub async fn client(stream: S, url: &str, most: usize) -> Result<Self, Broken> {
        let request = url.into_client_request().map_err(|error| Broken::NoLink(error.to_string()))?;
        match client_async_with_config(request, stream, Some(limits(most))).await {
            Ok((inner, _)) => Ok(Self { inner, role: Role::Client }),
            Err(SocketError::Http(answer)) => {
                let body = answer.body().as_deref().unwrap_or_default();
                let body = String::from_utf8_lossy(body);
                Err(Broken::NoLink(one_line(&format!("it answers {}: {body}", answer.status()))))
            }
            Err(error) => Err(broken(error)),
        }
    }

    /// Allows messages of up to `most` bytes from now on. Call it only while the other side waits for an answer.
    pub(crate) async fn grow(self, most: usize) -> Self {
        let Self { inner, role } = self;
        let inner = WebSocketStream::from_raw_socket(inner.into_inner(), role, Some(limits(most))).await;
        Self { inner, role }
    }

    /// Waits for a message.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> Result<Received<M>, Broken> {
        read(self.inner.next().await)
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), Broken> {
        self.inner.send(written(message)?).await.map_err(broken)
    }

    /// Sends a close frame with this reason, and closes.
    pub(crate) async fn close(&mut self, reason: &str) {
        let _ = self.inner.send(closing(reason)).await;
    }

    /// Splits the connection into two halves, which can be used at the same time.
    pub fn split(self) -> (Sender<S>, Receiver<S>) {
        let (sink, stream) = self.inner.split();
        (Sender(sink), Receiver(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sender<S> {
    /// Sends a message.
    pub async fn send(&mut self, message: &impl Serialize) -> Result<(), Broken> {
        self.0.send(written(message)?).await.map_err(broken)
    }

    /// Sends a ping, which the other side answers.
    pub async fn ping(&mut self) -> Result<(), Broken> {
        self.0.send(Message::Ping(Bytes::new())).await.map_err(broken)
    }

    /// Sends a close frame with this reason, and closes.
    pub(crate) async fn close(&mut self, reason: &str) {
        let _ = self.0.send(closing(reason)).await;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Receiver<S> {
    /// Waits for a message.
    pub async fn receive<M: DeserializeOwned>(&mut self) -> Result<Received<M>, Broken> {
        read(self.0.next().await)
    }
}

fn written(message: &impl Serialize) -> Result<Message, Broken> {
    let text = serde_json::to_string(message).map_err(|error| Broken::Malformed(error.to_string()))?;
    Ok(Message::text(text))
}

fn closing(reason: &str) -> Message {
    // A close frame has room for 123 bytes of text (RFC 6455, 5.5).
    let reason: String = one_line(reason).chars().filter(char::is_ascii).take(120).collect();
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: reason.into() }))
}

fn read<M: DeserializeOwned>(next: Option<Result<Message, SocketError>>) -> Result<Received<M>, Broken> {
    match next {
        None => Err(Broken::Closed("the connection was closed".into())),
        Some(Err(error)) => Err(broken(error)),
        Some(Ok(Message::Text(text))) => {
            let message = serde_json::from_str(&text)
                .map_err(|error| Broken::Malformed(format!("no message of this protocol: {error}")))?;
            Ok(Received { message: Some(message), bytes: text.len() })
        }
        Some(Ok(Message::Ping(data) | Message::Pong(data))) => {
            Ok(Received { message: None, bytes: data.len() })
        }
        Some(Ok(Message::Close(frame))) => {
            let reason = frame.map(|frame| one_line(&frame.reason)).filter(|reason| !reason.is_empty());
            Err(Broken::Closed(reason.unwrap_or_else(|| "the other side closed the connection".into())))
        }
        Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
            Err(Broken::Malformed("a binary frame, where text is spoken".into()))
        }
    }
}

fn broken(error: SocketError) -> Broken {
    match error {
        SocketError::ConnectionClosed | SocketError::AlreadyClosed => {
            Broken::Closed("the connection was closed".into())
        }
        SocketError::Capacity(error) => Broken::Malformed(one_line(&error.to_string())),
        SocketError::Utf8(_) | SocketError::AttackAttempt => Broken::Malformed(error.to_string()),
        error => Broken::Closed(one_line(&error.to_string())),
    }
}
