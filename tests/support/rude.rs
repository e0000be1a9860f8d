//! Clients that hang up while the server works on their request.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::app::App;
use super::wait::{PATIENCE, until};

/// A connection with a request whose answer is not read.
pub struct Rude {
    connection: TcpStream,
}

impl Rude {
    /// Sends a GraphQL request with an API token.
    pub async fn ask(app: &App, token: &str, document: &str, variables: &Value) -> Self {
        let host = app.url().trim_start_matches("http://");
        let body = json!({"query": document, "variables": variables}).to_string();
        let request = format!(
            "POST /graphql HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = TcpStream::connect(host).await.expect("a connection");
        connection.write_all(request.as_bytes()).await.expect("a server that reads");
        Self { connection }
    }

    /// Resets the connection, so that the server notices at once.
    pub fn break_off(self) {
        self.connection.set_zero_linger().expect("a connection that can be broken off");
    }

    /// Resets a connection that the server has accepted, and waits until the server has closed it.
    pub async fn break_off_and_be_heard(self, app: &App) {
        let socket = self.at_the_server();
        let folder = format!("/proc/{}/fd", app.process_id());
        let is_open = || {
            let files = fs::read_dir(&folder).expect("the server's open files");
            let mut names = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
            names.any(|name| name.as_path() == Path::new(&socket))
        };
        assert!(is_open(), "the server has no {socket}");
        self.break_off();
        until("the server to let go of the connection", PATIENCE, async || (!is_open()).then_some(())).await;
    }

    /// Returns the name of the server's end of the connection among its open files.
    fn at_the_server(&self) -> String {
        let port =
            |address: std::io::Result<SocketAddr>| format!(":{:04X}", address.expect("an address").port());
        let (theirs, ours) = (port(self.connection.peer_addr()), port(self.connection.local_addr()));
        let table = fs::read_to_string("/proc/net/tcp").expect("the connections of this machine");
        // A line describes one end: its number, address, peer, …, and the inode as the tenth.
        let inode = table.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_it = fields.get(1)?.ends_with(&theirs) && fields.get(2)?.ends_with(&ours);
            fields.get(9).filter(|_| is_it).copied()
        });
        format!("socket:[{}]", inode.expect("the server's end of the connection"))
    }
}
