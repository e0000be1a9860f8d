//! Requests that tests send again and again, in the server's own GraphQL.

use serde_json::{Value, json};

use super::api::Api;
use super::registry::RealRegistry;
use super::wait::{PATIENCE, until};

/// How a task ended, as a query.
const TASK: &str = "query($id: String!) { background_task(id: $id) {
    id kind state message current_progress total_progress
    ledger { added updated unchanged removed skipped_count failed_count
             skipped { reference reason } failed { reference reason } }
    items { name state attempts reason } } }";

const IMAGES: &str = "{ images { name humanized_name tag registry architecture digest size_bytes aliases
    labels { key value } resource_limits { key min max } supported_accelerators installed installed_agents } }";

/// A page of the audit log.
const AUDIT: &str = "query($before: BigInt) { audit_log(before: $before, limit: 1000) {
    items { number at count last_at other_targets user email credential address action target outcome reason }
    next } }";

impl Api {
    /// Registers a registry under this host name.
    pub async fn add_registry_at(&self, host: &str, url: &str, credentials: Option<(&str, &str)>) {
        // The fields are separate variables, so that this does not depend on the input type's name.
        let (user, password) = credentials.unzip();
        let data = self
            .ask(
                "mutation($host: String!, $url: String!, $type: String!, $user: String, $password: String) {
                   create_container_registry(hostname: $host, props: {
                     url: $url, type: $type, username: $user, password: $password
                   }) { container_registry { hostname config { url } } } }",
                json!({"host": host, "url": url, "type": "docker", "user": user, "password": password}),
            )
            .await;
        assert_eq!(data["create_container_registry"]["container_registry"]["hostname"], host, "{data}");
    }

    /// Registers a real registry with the credentials it asks for.
    pub async fn add_registry(&self, registry: &RealRegistry) {
        self.add_registry_at(registry.host(), &registry.url(), registry.credentials()).await;
    }

    /// Starts a rescan and returns its task.
    pub async fn rescan(&self, registry: &str) -> String {
        let data = self
            .ask(
                "mutation($registry: String!) { rescan_images(registry: $registry) { ok msg task_id } }",
                json!({"registry": registry}),
            )
            .await;
        started(&data["rescan_images"])
    }

    /// Rescans to the end, which must be `done`, and returns the task with its ledger.
    pub async fn scan(&self, registry: &str) -> Value {
        let task = self.rescan(registry).await;
        let event = self.finish(&task).await;
        assert!(event.name.ends_with("done"), "{event:?}\n{:#}", self.task(&task).await);
        self.task(&task).await
    }

    /// Scans one image by its name and returns the task.
    pub async fn scan_image(&self, reference: &str) -> String {
        let data = self
            .ask(
                "mutation($reference: String!) { scan_image(reference: $reference) { ok msg task_id } }",
                json!({"reference": reference}),
            )
            .await;
        started(&data["scan_image"])
    }

    /// Returns a task as the server shows it.
    pub async fn task(&self, id: &str) -> Value {
        self.ask(TASK, json!({"id": id})).await["background_task"].take()
    }

    /// Returns the whole catalog, in no order.
    pub async fn images(&self) -> Vec<Value> {
        let mut data = self.ask(IMAGES, json!({})).await;
        let Value::Array(images) = data["images"].take() else { panic!("no list of images: {data}") };
        images
    }

    /// Returns the only image with that name, tag and architecture.
    pub async fn image(&self, name: &str, tag: &str, architecture: &str) -> Value {
        let mut images = self.images().await;
        images.retain(|image| {
            image["name"] == name && image["tag"] == tag && image["architecture"] == architecture
        });
        assert_eq!(images.len(), 1, "{name}:{tag} ({architecture}): {images:#?}");
        images.remove(0)
    }

    /// Returns the rows of the audit log with higher numbers than this, oldest first.
    pub async fn audit_rows(&self, after: u64) -> Vec<Value> {
        let (mut rows, mut before) = (Vec::new(), Value::Null);
        loop {
            let mut page = self.ask(AUDIT, json!({"before": before})).await["audit_log"].take();
            let Value::Array(items) = page["items"].take() else { panic!("no rows: {page}") };
            let is_new = |row: &Value| row["number"].as_u64().is_some_and(|number| number > after);
            let all_new = items.iter().all(is_new);
            rows.extend(items.into_iter().filter(is_new));
            before = page["next"].take();
            if before.is_null() || !all_new {
                rows.reverse();
                return rows;
            }
        }
    }

    /// Waits until that many agents are alive and have been read, and returns their ids.
    pub async fn agents_alive(&self, count: usize) -> Vec<String> {
        until("the agents to be alive", PATIENCE, async || {
            let data = self.ask("{ agents { id status images_bytes } }", json!({})).await;
            let agents = data["agents"].as_array().expect("a list").clone();
            let is_read = |agent: &&Value| agent["status"] == "ALIVE" && !agent["images_bytes"].is_null();
            let alive: Vec<String> =
                agents.iter().filter(is_read).filter_map(|a| a["id"].as_str().map(str::to_owned)).collect();
            (alive.len() == count).then_some(alive)
        })
        .await
    }

    /// Starts `preload_image` or `unload_image` and returns the task.
    pub async fn transfer(&self, field: &str, reference: &str, agents: &str) -> String {
        let document = format!(
            "mutation($r: String!, $a: String!) {{ {field}(reference: $r, target_agents: $a) {{ ok msg task_id }} }}"
        );
        started(&self.ask(&document, json!({"r": reference, "a": agents})).await[field])
    }

    /// Runs `preload_image` or `unload_image` to its end; returns the final event's name and the task.
    pub async fn transfer_to_end(&self, field: &str, reference: &str, agents: &str) -> (String, Value) {
        let task = self.transfer(field, reference, agents).await;
        let event = self.finish(&task).await;
        (event.name, self.task(&task).await)
    }

    /// Returns the state of an image on each agent, in the order of their ids.
    pub async fn presence(&self, reference: &str) -> Vec<String> {
        let query = "query($r: String!) { image_presence(reference: $r) { agent state } }";
        let data = self.ask(query, json!({"r": reference})).await;
        let rows = data["image_presence"].as_array().expect("a list");
        rows.iter().map(|row| row["state"].as_str().expect("a state").to_owned()).collect()
    }

    /// Runs a mutation with one or two text arguments, given as they stand in the document; returns `(ok, msg)`.
    pub async fn mutate(&self, field: &str, arguments: &str) -> (bool, String) {
        let data = self.ask(&format!("mutation {{ {field}({arguments}) {{ ok msg }} }}"), json!({})).await;
        let answer = &data[field];
        let ok = answer["ok"].as_bool().unwrap_or_else(|| panic!("{field} says nothing: {data}"));
        (ok, answer["msg"].as_str().unwrap_or_default().to_owned())
    }
}

fn started(answer: &Value) -> String {
    assert_eq!(answer["ok"], true, "{answer}");
    answer["task_id"].as_str().expect("a task id").to_owned()
}

/// Returns the counts of a ledger: added, updated, unchanged, removed, skipped, failed.
pub fn counts(task: &Value) -> [u64; 6] {
    ["added", "updated", "unchanged", "removed", "skipped_count", "failed_count"].map(|field| {
        task["ledger"][field].as_u64().unwrap_or_else(|| panic!("the ledger has no {field}: {task:#}"))
    })
}
