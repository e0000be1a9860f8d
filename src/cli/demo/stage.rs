//! The lab that a demo begins with, set up over the API that everyone else uses.

use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    access::first_admin::Credentials,
    base::ids::TaskId,
    cli::{
        api::{Client, Outcome},
        failure::{Failure, Result},
    },
};

/// A label's key and value.
type Label = (&'static str, &'static str);

/// A node, its scaling group, its labels, and how many KiB it fetches in a second: slowly enough to be watched.
pub(super) const NODES: [(&str, &str, &[Label], u64); 6] = [
    ("gpu01", "gpu", &[("gpu", "a100"), ("zone", "a")], 200),
    ("gpu02", "gpu", &[("gpu", "a100"), ("zone", "b")], 260),
    ("gpu03", "gpu", &[("gpu", "h100"), ("zone", "a")], 160),
    (FLAKY, "gpu", &[("gpu", "h100"), ("zone", "b")], 110),
    ("cpu01", "cpu", &[("zone", "a")], 150),
    ("cpu02", "cpu", &[("zone", "b")], 120),
];
/// The node that goes away and comes back now and then.
pub(super) const FLAKY: &str = "gpu04";

/// What the registry is called; it is reached elsewhere.
const HOST: &str = "cr.lab.example";

/// Domain, group, and the scaling group it may use.
const GROUPS: [(&str, &str, &str); 3] =
    [("robotics", "vision", "gpu"), ("robotics", "control", "cpu"), ("biology", "genomics", "cpu")];

/// E-mail address, role, domain and group.
pub(super) const PEOPLE: [(&str, &str, &str, &str); 4] = [
    ("admin@robotics.example", "admin", "robotics", "vision"),
    ("user@robotics.example", "user", "robotics", "vision"),
    ("user@biology.example", "user", "biology", "genomics"),
    ("monitor@biology.example", "monitor", "biology", "genomics"),
];

/// What is on the nodes before anybody looks: image, and where.
const LOADED: [(&str, &str); 8] = [
    ("class/vision:2026.1-cuda12.4", "i-gpu[01-02]"),
    ("stable/python-pytorch:2.4-py312-cuda12.4", "@gpu"),
    ("stable/python-tensorflow:2.16-py311-cuda12.4", "i-gpu[01,03]"),
    ("community/jupyter:7.2-py312-ubuntu22.04", "*"),
    ("stable/python:3.12-ubuntu22.04", "@cpu"),
    ("stable/python:3.11-ubuntu22.04", "i-cpu01,i-gpu03"),
    ("class/genomics:2026.1-ubuntu22.04", "@cpu"),
    ("community/rstudio:2024.4-ubuntu22.04", "i-cpu02"),
];

/// Longest wait for a part of the scene: a slow machine, and something is wrong.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// The lab's administrator.
pub(super) struct Stage(pub(super) Client);

impl Stage {
    /// Registry, images, nodes, tenants and people.
    pub(super) async fn set(&self, registry: SocketAddr, admin: &Credentials) -> Result<()> {
        let add = "mutation($host: String!, $url: String!) { create_container_registry(hostname: $host, \
            props: { url: $url }) { container_registry { hostname } } }";
        let variables = json!({ "host": HOST, "url": format!("http://{registry}") });
        let _: Value = self.0.ask("create_container_registry", add, variables).await?;
        let scan = self.rescan().await?;
        for (name, scaling_group, labels, _) in NODES {
            self.node(name, scaling_group, labels).await?;
        }
        for (domain, group, scaling_group) in GROUPS {
            self.group(domain, group, scaling_group).await?;
        }
        for (email, role, domain, group) in PEOPLE {
            let groups = self.groups(domain, group).await?;
            let props = json!({
                "password": admin.password.expose(), "username": email, "role": role, "domain_name": domain,
                "group_ids": groups,
            });
            let variables = json!({ "email": email, "props": props });
            self.done(
                "create_user(email: $email, props: $props)",
                "$email: String!, $props: UserInput!",
                variables,
            )
            .await?;
        }
        self.end_of(scan).await?;
        let mut loading = Vec::new();
        for (image, agents) in LOADED {
            loading.push(self.transfer("preload_image", image, agents).await?);
        }
        for task in loading {
            self.end_of(task).await?;
        }
        Ok(())
    }

    /// Has the registry read again.
    pub(super) async fn rescan(&self) -> Result<TaskId> {
        let started = self.done("rescan_images(registry: $host)", "$host: String!", json!({ "host": HOST }));
        task_of(&started.await?)
    }

    /// Has an image loaded, or taken off.
    pub(super) async fn transfer(&self, mutation: &str, image: &str, agents: &str) -> Result<TaskId> {
        let field = format!("{mutation}(reference: $image, target_agents: $agents)");
        let variables = json!({ "image": image, "agents": agents });
        let started = self.done(&field, "$image: String!, $agents: String!", variables);
        task_of(&started.await?)
    }

    /// Waits for the end of a task, whatever that is.
    pub(super) async fn end_of(&self, task: TaskId) -> Result<()> {
        #[derive(Deserialize)]
        struct Task {
            state: String,
        }
        let query = "query($id: String!) { background_task(id: $id) { state } }";
        waited("a task of the scene", async || {
            let task: Task = self.0.ask("background_task", query, json!({ "id": task })).await?;
            Ok(task.state != "started")
        })
        .await
    }

    /// Runs a mutation that answers `ok` and `msg`.
    async fn done(&self, field: &str, declared: &str, variables: Value) -> Result<Outcome> {
        let name = field.split('(').next().unwrap_or(field);
        let tasks = if name.ends_with("_image") || name.ends_with("_images") { " task_id" } else { "" };
        let query = format!("mutation({declared}) {{ {field} {{ ok msg code{tasks} }} }}");
        self.0.change(name, name, &query, variables).await
    }

    /// Gives a node its place, once its engine has been met.
    async fn node(&self, name: &str, scaling_group: &str, labels: &[Label]) -> Result<()> {
        self.present("scaling_group", "create_scaling_group", "CreateScalingGroupInput", scaling_group)
            .await?;
        let id = format!("i-{name}");
        let query = "query($id: String!) { agent(agent_id: $id) { id } }";
        waited("a node of the scene", async || {
            let found: Option<Value> = self.0.find(&id, "agent", query, json!({ "id": id })).await?;
            Ok(found.is_some_and(|agent| !agent.is_null()))
        })
        .await?;
        let labels: Vec<Value> =
            labels.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let props = json!({ "scaling_group": scaling_group, "labels": labels });
        let declared = "$id: String!, $props: ModifyAgentInput!";
        let variables = json!({ "id": id, "props": props });
        self.done("modify_agent(id: $id, props: $props)", declared, variables).await.map(drop)
    }

    /// Makes a domain or a scaling group that is not there yet.
    async fn present(&self, query: &str, create: &str, input: &str, name: &str) -> Result<()> {
        let document = format!("query($name: String) {{ {query}(name: $name) {{ name }} }}");
        let found: Option<Value> = self.0.find(name, query, &document, json!({ "name": name })).await?;
        if found.is_some_and(|found| !found.is_null()) {
            return Ok(());
        }
        let declared = format!("$name: String!, $props: {input}!");
        let mut props = json!({});
        if input == "CreateScalingGroupInput" {
            props = json!({ "driver": "static", "scheduler": "fifo" });
        }
        let variables = json!({ "name": name, "props": props });
        self.done(&format!("{create}(name: $name, props: $props)"), &declared, variables).await.map(drop)
    }

    async fn group(&self, domain: &str, group: &str, scaling_group: &str) -> Result<()> {
        self.present("domain", "create_domain", "DomainInput", domain).await?;
        let variables = json!({ "name": domain, "props": { "allowed_docker_registries": [HOST] } });
        let declared = "$name: String!, $props: ModifyDomainInput!";
        self.done("modify_domain(name: $name, props: $props)", declared, variables).await?;
        let variables = json!({ "name": group, "props": { "domain_name": domain } });
        let declared = "$name: String!, $props: GroupInput!";
        self.done("create_group(name: $name, props: $props)", declared, variables).await?;
        let id = self.groups(domain, group).await?.pop();
        self.done(
            "associate_scaling_group_with_user_group(scaling_group: $name, user_group: $id)",
            "$name: String!, $id: UUID!",
            json!({ "name": scaling_group, "id": id }),
        )
        .await
        .map(drop)
    }

    async fn groups(&self, domain: &str, group: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Row {
            id: String,
        }
        let query = "query($name: String!, $domain: String) { groups_by_name(name: $name, domain_name: $domain) { id } }";
        let variables = json!({ "name": group, "domain": domain });
        let rows: Vec<Row> = self.0.ask("groups_by_name", query, variables).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

fn task_of(outcome: &Outcome) -> Result<TaskId> {
    outcome.task_id.ok_or_else(|| Failure::failed("demo", "the server started no task"))
}

async fn waited(what: &str, is_done: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_done().await? {
        if begun.elapsed() > PATIENCE {
            return Err(Failure::failed("demo", format!("{what} was not there in time")));
        }
        sleep(LOOK).await;
    }
    Ok(())
}
