//! A small HTTP server for tests: it gives scripted answers in turn and remembers its requests. At the end of the
//! script it stops listening, like a stopped server.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

use crate::{base::secret::Secret, cli::api::Client};

/// What the server does with one connection.
pub(crate) enum Answer {
    /// Sends a status and a whole body.
    Json(u16, String),
    /// Sends the start of an event stream, then closes it without an end event.
    Stream(String),
    /// Closes the connection without an answer.
    Drop,
    /// Does not listen for this long.
    Away(Duration),
}

impl Answer {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::Json(status, body.into())
    }
}

/// A request that the server received.
#[derive(Clone)]
pub(crate) struct Asked {
    head: String,
    /// The request's body.
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A running scripted server.
pub(crate) struct Server {
    /// The server's URL.
    pub(crate) endpoint: Url,
    asked: Arc<Mutex<Vec<Asked>>>,
}

/// A client of the server; its secret key is `secret`.
pub(crate) fn client(server: &Server) -> Client {
    Client::with_keys(&server.endpoint, None, "AK".into(), Secret::new("secret")).unwrap()
}

impl Server {
    pub(crate) async fn start(script: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(play(listener, address, script, Arc::clone(&asked)));
        Self { endpoint: format!("http://{address}").parse().unwrap(), asked }
    }

    /// All requests that the server received so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn play(
    listener: TcpListener,
    address: SocketAddr,
    script: Vec<Answer>,
    asked: Arc<Mutex<Vec<Asked>>>,
) {
    let mut listener = Some(listener);
    for answer in script {
        if let Answer::Away(time) = answer {
            listener = None;
            tokio::time::sleep(time).await;
            continue;
        }
        if listener.is_none() {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
        let (mut stream, _) = listener.as_ref().unwrap().accept().await.unwrap();
        let request = read(&mut stream).await;
        asked.lock().unwrap().push(request);
        let text = match answer {
            Answer::Json(status, body) => format!(
                "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            ),
            Answer::Stream(events) => format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n{events}"
            ),
            Answer::Drop | Answer::Away(_) => continue,
        };
        stream.write_all(text.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }
}

async fn read(stream: &mut TcpStream) -> Asked {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8(bytes.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let asked = Asked { head: head.into(), body: body.into() };
            let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
            if body.len() >= length {
                return asked;
            }
        }
        assert_ne!(
            stream.read_buf(&mut bytes).await.unwrap(),
            0,
            "the client left in the middle of its request"
        );
    }
}
