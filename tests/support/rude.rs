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
        let body = json!({"query": document, "variables": variables});
        Self::send(app, "/graphql", &format!("Authorization: Bearer {token}\r\n"), &body).await
    }

    /// Sends an attempt to sign in.
    pub async fn sign_in(app: &App, email: &str, password: &str) -> Self {
        Self::send(app, "/server/login", "", &json!({"username": email, "password": password})).await
    }

    async fn send(app: &App, path: &str, headers: &str, body: &Value) -> Self {
        let (host, body) = (app.url().trim_start_matches("http://"), body.to_string());
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
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

    /// Waits until the server has read what was sent: a reset would take it back.
    pub async fn be_read(&self) {
        let is_read = || self.servers_end()[4].ends_with(":00000000");
        until("the server to read the request", PATIENCE, async || is_read().then_some(())).await;
    }

    /// Returns the name of the server's end of the connection among its open files.
    fn at_the_server(&self) -> String {
        format!("socket:[{}]", self.servers_end()[9])
    }

    /// Returns what the kernel tells of the server's end: number, address, peer, state, queues, …, and the inode as the
    /// tenth.
    fn servers_end(&self) -> Vec<String> {
        let port =
            |address: std::io::Result<SocketAddr>| format!(":{:04X}", address.expect("an address").port());
        let (theirs, ours) = (port(self.connection.peer_addr()), port(self.connection.local_addr()));
        let table = fs::read_to_string("/proc/net/tcp").expect("the connections of this machine");
        let end = table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).find(
            |fields: &Vec<String>| {
                fields.len() > 9 && fields[1].ends_with(&theirs) && fields[2].ends_with(&ours)
            },
        );
        end.expect("the server's end of the connection")
    }
}
