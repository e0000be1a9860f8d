//! Secrets stay secret: everything is done once with known secrets, and then the output is searched for them.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, ADMIN_SECRET_KEY, App};
use crate::support::http1::{Response, Server};
use crate::support::visitor::Visitor;

const WRONG: &str = "planted-wrong-password-41";
const NEXT: &str = "planted-next-password-42";
const REGISTRY: &str = "planted-registry-password-43";
const TOKEN_OF_REGISTRY: &str = "planted-registry-password-44";

/// What the server answered, and to which request.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn note(&mut self, what: &str, text: impl Into<String>) {
        self.0.push((what.into(), text.into()));
    }
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read(path).unwrap());
    entries.filter(|path| path.is_file()).map(read).collect()
}

#[tokio::test]
async fn no_secret_is_in_a_log_an_answer_or_the_database() {
    let mut app = App::start_with(|serve| {
        serve.args(["--log-level", "trace"]);
    })
    .await;
    let registry = Server::start(|_| async { Response::new(401) }).await;
    let mut said = Said::default();
    let mut secrets: Vec<String> =
        [ADMIN_PASSWORD, ADMIN_SECRET_KEY, WRONG, NEXT, REGISTRY, TOKEN_OF_REGISTRY].map(Into::into).into();

    let mut person = Visitor::of(&app);
    for (email, password) in [(ADMIN_EMAIL, WRONG), (WRONG, WRONG), (ADMIN_EMAIL, ADMIN_PASSWORD)] {
        let reply = person.sign_in(email, password).await;
        said.note("login", reply.text());
    }
    secrets.push(person.cookie.clone().unwrap().split_once('=').unwrap().1.to_owned());
    // Bodies that can't be read, with a password in them.
    for body in [
        format!("{{\"username\": \"{ADMIN_EMAIL}\", \"password\": \"{WRONG}\""),
        format!("{{\"username\": {{\"{WRONG}\": 1}}, \"password\": \"{WRONG}\"}}"),
        format!("[\"{WRONG}\"]"),
        format!("username=a&password={WRONG}"),
    ] {
        let call = person.call("POST", "/server/login").content_type("application/json").body(body.clone());
        said.note("login that can't be read", call.send().await.text());
        let call = person.call("POST", "/auth/update-password").content_type("application/json").body(body);
        said.note("change that can't be read", call.send().await.text());
    }
    let change = json!({"old_password": WRONG, "new_password": NEXT, "new_password2": NEXT});
    said.note(
        "change refused",
        person.call("POST", "/auth/update-password").json(&change).send().await.text(),
    );
    let change = json!({"old_password": ADMIN_PASSWORD, "new_password": NEXT, "new_password2": NEXT});
    said.note("change", person.call("POST", "/auth/update-password").json(&change).send().await.text());

    let admin = app.admin();
    let query = "mutation { create_api_token(name: \"ci\", scope: \"full\") { token } }";
    let made = admin.ask(query, json!({})).await;
    let token = made["create_api_token"]["token"].as_str().unwrap().to_owned();
    let call = admin.clone().call("GET", "/events/background-task?task_id=0").unsigned();
    said.note("events", call.header("Authorization", &format!("Bearer {token}")).send().await.text());
    secrets.push(token);

    let url = registry.url();
    for password in [REGISTRY, TOKEN_OF_REGISTRY] {
        let verb = if password == REGISTRY { "create" } else { "modify" };
        let kind = if password == REGISTRY {
            "CreateContainerRegistryInput"
        } else {
            "ModifyContainerRegistryInput"
        };
        let query = format!(
            "mutation($h: String!, $p: {kind}!) {{ {verb}_container_registry(hostname: $h, props: $p) {{
                container_registry {{ hostname config {{ url type username password }} }} }} }}"
        );
        let props = json!({"url": url, "type": "docker", "username": "robot", "password": password});
        said.note(verb, admin.graphql(&query, json!({"h": registry.host(), "p": props})).await.to_string());
    }
    let query = "mutation($h: String!) { test_container_registry(hostname: $h) { ok msg } }";
    said.note("test", admin.graphql(query, json!({"h": registry.host()})).await.to_string());
    let query = "mutation($h: String) { rescan_images(registry: $h) { ok msg task_id } }";
    let started = admin.ask(query, json!({"h": registry.host()})).await;
    let task = started["rescan_images"]["task_id"].as_str().unwrap().to_owned();
    said.note("the task's last event", format!("{:?}", admin.finish(&task).await));
    said.note("the task", admin.task(&task).await.to_string());
    for query in [
        "{ container_registries { hostname config { url username password } } }",
        "{ api_tokens { id name scope } sessions { created_at address } }",
        "{ audit_log { items { email credential action target reason } } }",
    ] {
        said.note(query, admin.graphql(query, Value::Null).await.to_string());
    }
    // A secret in a wrong document or its variables belongs to the caller; only stored secrets must not appear.
    said.note("login-check", person.call("POST", "/server/login-check").send().await.text());
    said.note("logout", person.call("POST", "/server/logout").send().await.text());
    let (status, _) = app.terminate().await;
    assert!(status.success(), "{status}");

    said.note("the log", app.logs());
    assert!(said.0.iter().all(|(_, text)| !text.is_empty()));
    for secret in &secrets {
        for (what, text) in &said.0 {
            assert!(!text.contains(secret), "{secret} is in {what}");
        }
        for (name, bytes) in files(&app.data_dir()) {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {name}");
        }
    }
}

#[tokio::test]
async fn a_crash_leaves_no_copy_of_the_memory() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().to_owned();
    let mut app = App::start_with(move |serve| {
        serve.current_dir(&here);
    })
    .await;
    // As on a machine that keeps every core dump.
    let process = app.process_id().to_string();
    let mut unlimited = Command::new("prlimit");
    assert!(unlimited.args(["--core=unlimited:unlimited", "--pid", &process]).status().unwrap().success());
    let status = app.crash().await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false), "{status}");
}
