//! The documents with which the official clients administer domains, groups, users, keypairs, scaling groups and
//! agents, from the oldest generation to the newest: the server must understand each, and do what it says.
//!
//! The documents are in `tests/documents.json`. In the variables, `{group}` and the like stand for what an earlier
//! document made; `refused` is the beginning of the message if a document can't be done here.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::app::{ADMIN_ACCESS_KEY, App};

#[derive(Deserialize)]
struct Document {
    since: String,
    command: String,
    #[serde(rename = "document")]
    text: String,
    variables: Value,
    #[serde(default)]
    refused: Option<String>,
}

fn documents() -> Vec<Document> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What earlier documents made, by the names in the table.
struct Made(HashMap<&'static str, String>);

impl Made {
    fn fill(&self, variables: &Value) -> Value {
        let mut text = variables.to_string();
        for (name, value) in &self.0 {
            text = text.replace(&format!("{{{name}}}"), value);
        }
        serde_json::from_str(&text).unwrap()
    }

    fn note(&mut self, data: &Value) {
        for (name, path) in [
            ("group", "/create_group/group/id"),
            ("key", "/create_keypair/keypair/access_key"),
            ("user", "/create_user/user/uuid"),
        ] {
            if let Some(value) = data.pointer(path).and_then(Value::as_str) {
                self.0.insert(name, value.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn every_document_of_every_client_generation_does_what_it_says() {
    let app = App::start().await;
    let admin = app.admin();
    let data = admin.ask("{ groups { id name } }", json!({})).await;
    let default = data["groups"][0]["id"].as_str().unwrap().to_owned();
    let mut made =
        Made(HashMap::from([("default group", default), ("own key", ADMIN_ACCESS_KEY.to_owned())]));
    let documents = documents();
    assert!(documents.len() > 80, "{} documents", documents.len());
    for Document { since, command, text: document, variables, refused } in documents {
        let what = format!("{since} {command}\n{document}");
        if variables.to_string().contains("{user key}") {
            let found = admin.ask("{ keypairs(email: \"d@b.c\") { access_key } }", json!({})).await;
            made.0.insert("user key", found["keypairs"][0]["access_key"].as_str().unwrap().to_owned());
        }
        let answer = admin.graphql(&document, made.fill(&variables)).await;
        let payload = answer["data"].as_object().and_then(|data| data.values().next());
        if let Some(refused) = refused {
            let message = answer.pointer("/errors/0/message").or_else(|| payload?.get("msg"));
            let message = message.and_then(Value::as_str).unwrap_or_default();
            assert!(message.starts_with(&refused), "{what}\n{answer:#}");
            continue;
        }
        assert!(answer["errors"].is_null(), "{what}\n{answer:#}");
        let payload = payload.unwrap_or_else(|| panic!("{what}\n{answer:#}"));
        if document.starts_with("mutation") {
            assert_eq!(payload["ok"], true, "{what}\n{answer:#}");
            made.note(&answer["data"]);
        } else {
            assert!(!payload.is_null(), "{what}\n{answer:#}");
        }
    }
}

/// Clients of the seed's era use another path and want the bare data.
#[tokio::test]
async fn the_oldest_clients_are_answered_without_an_envelope() {
    let app = App::start().await;
    let reply = app
        .admin()
        .call("POST", "/admin/graphql")
        .json(&json!({"query": "query{domains{name scaling_groups}}"}))
        .send()
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json(), json!({"domains": [{"name": "default", "scaling_groups": ["default"]}]}));
}
