//! Allowed documents whose answers are long.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::beside::Beside;
use crate::support::app::App;
use crate::support::wait::{PATIENCE, until};

/// How many requests run at once; `OF_ONE` is how many answers for one user the server keeps in memory at most.
const AT_ONCE: usize = 300;
const OF_ONE: usize = 8;

/// Asks for the schema as often as one document may: the answer has a megabyte.
fn schemas() -> Value {
    let schema = "types { description fields { name description args { name description type { name } } } }";
    let alias = |number| format!("a{number}: __schema {{ {schema} }} ");
    json!({ "query": format!("{{ {} }}", (0..4).map(alias).collect::<String>()) })
}

/// Uses one long text in as many fields as may have it.
fn long_variable() -> Value {
    let alias = |number| format!("a{number}: user(email: $e) {{ email }} ");
    let text = format!("query($e: String) {{ {} }}", (0..40).map(alias).collect::<String>());
    json!({ "query": text, "variables": { "e": "x".repeat(200_000) } })
}

/// Sends a request over a connection of its own and never reads the answer.
async fn unread(app: &App, token: &str, document: &Value) -> TcpStream {
    let address = app.url().trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let body = document.to_string();
    let head = format!(
        "POST /admin/gql HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a head is taken");
    stream.write_all(body.as_bytes()).await.expect("a body is taken");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_long_and_are_not_read_fill_no_memory() {
    let app = App::start().await;
    let reader = app.person("reader@test.invalid", "user", "default").await.api;
    let mutation = "mutation { create_api_token(name: \"a\", scope: \"read\") { token } }";
    let made = reader.ask(mutation, json!({})).await;
    let token = made["create_api_token"]["token"].as_str().expect("a token");
    let beside = Beside::start(&app).await;
    let documents = [schemas(), long_variable(), schemas()];
    let mut streams = Vec::new();
    for document in documents.iter().cycle().take(AT_ONCE) {
        streams.push(unread(&app, token, document).await);
    }
    let begun = async || {
        let mut begun = 0;
        for stream in &streams {
            let came = tokio::time::timeout(Duration::ZERO, stream.peek(&mut [0])).await;
            begun += usize::from(matches!(came, Ok(Ok(1..))));
        }
        (begun >= OF_ONE).then_some(())
    };
    until("the first answers", PATIENCE, begun).await;
    // Clients that read get their answers, and the loop runs longer than the server would need to answer all the
    // others.
    for _ in 0..20 {
        let reply = app.admin().call("POST", "/admin/gql").json(&schemas()).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    beside.was_served(&app).await;
}
