//! The lab that a demo begins with, set up over the same API that all other clients use.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    access::first_admin::Credentials,
    base::ids::TaskId,
    cli::{
        agent,
        api::{Client, Outcome, Payload, Started},
        domain,
        failure::{Failure, Result},
        group, image, json,
        operation::{One, Operation, Set},
        registry,
        scaling_group::{self, Use},
        transfer,
    },
};

/// A label's key and value.
type Label = (&'static str, &'static str);

/// The nodes: name, scaling group, labels, and how many KiB each fetches in a second, slow enough to watch.
pub(super) const NODES: [(&str, &str, &[Label], u64); 6] = [
    ("gpu01", "gpu", &[("gpu", "a100"), ("zone", "a")], 200),
    ("gpu02", "gpu", &[("gpu", "a100"), ("zone", "b")], 260),
    ("gpu03", "gpu", &[("gpu", "h100"), ("zone", "a")], 160),
    (FLAKY, "gpu", &[("gpu", "h100"), ("zone", "b")], 110),
    ("cpu01", "cpu", &[("zone", "a")], 150),
    ("cpu02", "cpu", &[("zone", "b")], 120),
];
/// The node that goes away and comes back repeatedly.
pub(super) const FLAKY: &str = "gpu04";

/// The registry's name in the lab; its real address is another.
const HOST: &str = "cr.lab.example";

/// The groups: domain, name, and the scaling group that each may use.
const GROUPS: [(&str, &str, &str); 3] =
    [("robotics", "vision", "gpu"), ("robotics", "control", "cpu"), ("biology", "genomics", "cpu")];

/// The users: e-mail address, role, domain and group.
pub(super) const PEOPLE: [(&str, &str, &str, &str); 4] = [
    ("admin@robotics.example", "admin", "robotics", "vision"),
    ("user@robotics.example", "user", "robotics", "vision"),
    ("user@biology.example", "user", "biology", "genomics"),
    ("monitor@biology.example", "monitor", "biology", "genomics"),
];

/// The images on the nodes when the demo opens: image, and agents.
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

/// Longest wait for a part of the scene: longer means that something is wrong, even on a slow machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Pause between two checks whether a part of the scene is done.
const LOOK: Duration = Duration::from_millis(20);

const FILE: &str = include_str!("../operations/demo.graphql");
pub(crate) const TASK: Operation<One<'_>, Task> = Operation::new(FILE, "DemoTask", "background_task");
pub(crate) const AGENT: Operation<One<'_>, Value> = Operation::new(FILE, "DemoAgent", "agent");
pub(crate) const SCALING_GROUP: Operation<One<'_>, Value> =
    Operation::new(FILE, "DemoScalingGroup", "scaling_group");
pub(crate) const DOMAIN: Operation<One<'_>, Value> = Operation::new(FILE, "DemoDomain", "domain");
pub(crate) const GROUP: Operation<Within<'_>, json::List<Row>> =
    Operation::new(FILE, "DemoGroups", "groups_by_name");
pub(crate) const USER: Operation<Set<'_>, Outcome> = Operation::new(FILE, "DemoUser", "create_user");

/// An operation that loads an image or removes it.
pub(super) type Transfer = Operation<transfer::Asked<'static>, Started>;

#[derive(Deserialize)]
pub(crate) struct Task {
    state: String,
}

#[derive(Deserialize)]
pub(crate) struct Row {
    id: String,
}

/// The variables that name a group: its name and its domain.
#[derive(Default, Serialize)]
pub(crate) struct Within<'a> {
    name: &'a str,
    domain: &'a str,
}

/// The client that sets up the lab, signed in as its administrator.
pub(super) struct Stage(pub(super) Client);

impl Stage {
    /// Sets up the registry, the images, the nodes, the domains and groups, and the users.
    pub(super) async fn set(&self, at: SocketAddr, admin: &Credentials) -> Result<()> {
        let props = json!({ "url": format!("http://{at}") });
        self.0.ask(&registry::CREATE, Set { id: HOST, props }).await?;
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
            self.done(&USER, Set { id: email, props }).await?;
        }
        self.end_of(scan).await?;
        let mut loading = Vec::new();
        for (image, agents) in LOADED {
            loading.push(self.transfer(&transfer::PRELOAD, image, agents).await?);
        }
        for task in loading {
            self.end_of(task).await?;
        }
        Ok(())
    }

    /// Has the server read the registry again.
    pub(super) async fn rescan(&self) -> Result<TaskId> {
        let scope = image::Scope { registry: Some(HOST), ..image::Scope::default() };
        task_of(&self.done(&image::RESCAN, scope).await?)
    }

    /// Has an image loaded or removed.
    pub(super) async fn transfer(&self, operation: &Transfer, image: &str, agents: &str) -> Result<TaskId> {
        task_of(&self.done(operation, transfer::asked(&[image.to_owned()], agents, None)).await?)
    }

    /// Waits until a task ends, with whatever result.
    pub(super) async fn end_of(&self, task: TaskId) -> Result<()> {
        let id = task.to_string();
        waited("a task of the scene", async || {
            let task = self.0.ask(&TASK, One { id: &id }).await?;
            Ok(task.state != "started")
        })
        .await
    }

    /// Runs a mutation that answers `ok` and `msg`.
    async fn done<V: Serialize, T: Payload>(&self, operation: &Operation<V, T>, variables: V) -> Result<T> {
        self.0.change(operation.field(), operation, variables).await
    }

    /// Gives a node its scaling group and labels, once the server has found its engine.
    async fn node(&self, name: &str, scaling_group: &str, labels: &[Label]) -> Result<()> {
        let props = json!({ "driver": "static", "scheduler": "fifo" });
        self.present(&SCALING_GROUP, &scaling_group::CREATE, Set { id: scaling_group, props }).await?;
        let id = format!("i-{name}");
        waited("a node of the scene", async || {
            Ok(self.0.find(&id, &AGENT, One { id: &id }).await?.is_some())
        })
        .await?;
        let labels: Vec<Value> =
            labels.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        let props = json!({ "scaling_group": scaling_group, "labels": labels });
        self.done(&agent::MODIFY, Set { id: &id, props }).await.map(drop)
    }

    /// Makes a domain or a scaling group if it does not exist yet.
    async fn present<'a>(
        &self,
        query: &Operation<One<'a>, Value>,
        create: &Operation<Set<'a>, Outcome>,
        wanted: Set<'a>,
    ) -> Result<()> {
        let found = self.0.find(wanted.id, query, One { id: wanted.id }).await?;
        if found.is_some() { Ok(()) } else { self.done(create, wanted).await.map(drop) }
    }

    async fn group(&self, domain: &str, group: &str, scaling_group: &str) -> Result<()> {
        self.present(&DOMAIN, &domain::CREATE, Set { id: domain, props: json!({}) }).await?;
        let props = json!({ "allowed_docker_registries": [HOST] });
        self.done(&domain::MODIFY, Set { id: domain, props }).await?;
        self.done(&group::CREATE, Set { id: group, props: json!({ "domain_name": domain }) }).await?;
        let whom = self.groups(domain, group).await?.pop().unwrap_or_default();
        self.done(&scaling_group::ALLOW_GROUP, Use { id: scaling_group, whom: &whom }).await.map(drop)
    }

    async fn groups(&self, domain: &str, group: &str) -> Result<Vec<String>> {
        let rows = self.0.ask(&GROUP, Within { name: group, domain }).await?.0;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}

fn task_of(started: &Started) -> Result<TaskId> {
    started.task_id.ok_or_else(|| Failure::failed("demo", "the server started no task"))
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
