//! A server that keeps something of every kind, and what it says of it.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, ADMIN_PASSWORD, ADMIN_SECRET_KEY, App};
use crate::support::http1::{Answer, Response};
use crate::support::image::Image;
use crate::support::machine::{Speaker, hello, token};
use crate::support::people::PASSWORD as PERSONAL;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::visitor::Visitor;
use crate::support::wait::{PATIENCE, until};

/// The agent's engine, below the directory that the server runs in.
pub const ENGINE: &str = "oci:one";
/// The registry that is read, as the catalog calls it.
pub const HOST: &str = "cr.lab.example";
/// One that is read, too, and stays where it is: what is known of it stays known.
const KEPT: &str = "kept.lab.example";
/// One that never is read.
const OTHER: &str = "harbor.lab.example:8443";
/// An agent that dials in, and the key of its credential.
pub const DIALS_IN: &str = "i-dials-in";
pub const KEY: &str = "fixturefixture";
/// Where nobody listens: whoever opens the directory later finds no registry.
const NOWHERE: &str = "http://127.0.0.1:1";

/// How its rule stands.
const STANDARD: &str = "{ preload_rule(name: \"standard\") { status { held_back present } } }";

/// What stays as it is however long nobody looks.
const LASTING: &[&str] = &[
    "{ image_pins { reference target_agents created_at created_by } }",
    "{ retention_rules { name images target_agents keep_last unused_for when_below until unknown_images window
       time_zone enabled confirmed created_at created_by modified_at modified_by } }",
    "{ users { uuid email username full_name description role status domain_name need_password_change created_at } }",
    "{ keypairs { access_key user_id is_active is_admin rate_limit created_at } }",
    "{ domains { name description is_active allowed_docker_registries scaling_groups created_at } }",
    "{ groups { id name description domain_name is_active scaling_groups created_at } }",
    "{ scaling_groups { name description is_active is_public created_at } }",
    "{ keypair_resource_policies { name } }",
    "{ container_registries { hostname config { url type project username password ssl_verify is_global
       kernelspec_only trusted_hosts ca_pem } } }",
    "{ images { id name tag registry architecture digest manifest_digest target_digest size_bytes created_at
       humanized_name aliases labels { key value } resource_limits { key min max } supported_accelerators
       installed_agents } }",
    "{ agents { id scaling_group schedulable first_contact labels { key value } } }",
    "{ preload_rules { name images target_agents enabled window time_zone created_at created_by modified_at
       modified_by } }",
];

/// What is forgotten some day.
const PASSING: &[&str] = &[
    "{ api_tokens { id name scope created_at expires_at } }",
    "{ sessions { address created_at } }",
    "{ agent_tokens { id agent scaling_group uses_left used_by state created_by created_at expires_at } }",
    "{ background_tasks { id kind subject state rule target_agents created_at ended_at
       ledger { added updated unchanged removed skipped_count failed_count
                skipped { reference reason } failed { reference reason } }
       items(is_final: true) { name agent reference state reason attempts started_at ended_at } } }",
    "{ audit_log(limit: 1000) { items { number at user email credential address action target outcome reason } } }",
];

/// The account that somebody has tried passwords for, and how many.
const TRIED: &str = "nobody@lab.example";
const FAILURES: usize = 5;
/// Taken as it is; nothing is reached by it.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n";

/// A server that keeps something of every kind.
pub struct Full {
    app: App,
    /// The agent that is a directory.
    one: String,
    registry: Shelf,
    /// Access keys and their secrets, by whose they are.
    keypairs: BTreeMap<String, (String, String)>,
}

impl Full {
    /// Fills one.
    pub async fn start() -> Self {
        let registry = shelf().await;
        let app = App::start_with(|serve| {
            serve.args(["--engine", ENGINE]);
        })
        .await;
        let one = app.admin().agents_alive(1).await.remove(0);
        let mut full = Self { app, one, registry, keypairs: BTreeMap::new() };
        full.people().await;
        full.agents().await;
        full.registries().await;
        full.tasks().await;
        full
    }

    /// The directory that the server runs in; its data is in `data`.
    pub fn root(&self) -> &Path {
        self.app.launch().root()
    }

    fn api(&self) -> Api {
        self.app.admin()
    }

    async fn people(&mut self) {
        let api = self.api();
        for (name, is_public) in [("gpu", true), ("cpu", false)] {
            api.does("create_scaling_group", &format!("name: {name:?}, props: {{is_public: {is_public}}}"))
                .await;
        }
        let props = format!("{{description: \"where tests live\", allowed_docker_registries: [{HOST:?}]}}");
        api.does("create_domain", &format!("name: \"lab\", props: {props}")).await;
        api.does("create_domain", "name: \"gone\", props: {}").await;
        api.does("delete_domain", "name: \"gone\"").await;
        let props = "{domain_name: \"lab\", description: \"all\"}";
        api.does("create_group", &format!("name: \"everybody\", props: {props}")).await;
        let group = api.group_id("everybody").await;
        self.keypairs.insert(ADMIN_EMAIL.into(), (ADMIN_ACCESS_KEY.into(), ADMIN_SECRET_KEY.into()));
        for (email, role) in [("ann@lab.example", "user"), ("bob@lab.example", "admin")] {
            let props = json!({"password": PERSONAL, "role": role, "domain_name": "lab", "group_ids": [group],
                "full_name": "Somebody", "description": "made for tests", "need_password_change": role == "user"});
            let person = self.app.person_with(email, props).await;
            self.keypairs.insert(email.into(), (person.access_key, person.secret_key));
        }
        let left = self.app.person("left@lab.example", "user", "lab").await;
        api.does("delete_user", "email: \"left@lab.example\"").await;
        let ann = &self.keypairs["ann@lab.example"].0;
        api.does("modify_keypair", &format!("access_key: {ann:?}, props: {{rate_limit: 30000}}")).await;
        let gone = format!("access_key: {:?}, props: {{is_active: false}}", left.access_key);
        api.does("modify_keypair", &gone).await;
        for (field, of) in [
            ("associate_scaling_group_with_domain", "domain: \"lab\"".to_owned()),
            ("associate_scaling_group_with_user_group", format!("user_group: {group:?}")),
            ("associate_scaling_group_with_keypair", format!("access_key: {ann:?}")),
        ] {
            api.does(field, &format!("scaling_group: \"cpu\", {of}")).await;
        }
    }

    async fn agents(&self) {
        let (api, one) = (self.api(), &self.one);
        let props = "{labels: [{key: \"rack\", value: \"7\"}], scaling_group: \"gpu\"}";
        api.does("modify_agent", &format!("id: {one:?}, props: {props}")).await;
        let mut dials_in = hello(Some(&token(&api, json!({"scaling_group": "gpu"})).await), KEY);
        dials_in.id = Some(DIALS_IN.into());
        let (_link, id) = Speaker::join(&self.app, dials_in).await.expect("in");
        assert_eq!(id, DIALS_IN);
        token(&api, json!({"scaling_group": "cpu", "uses": 3, "expires_in": 1_000_000})).await;
        let taken_back = token(&api, json!({})).await;
        api.does("revoke_agent_token", &format!("id: {:?}", taken_back.split('_').nth(1).unwrap())).await;
    }

    async fn registries(&self) {
        let api = self.api();
        api.add_registry_at(HOST, &self.registry.url(), Some((USER, PASSWORD))).await;
        api.add_registry_at(KEPT, &self.registry.url(), Some((USER, PASSWORD))).await;
        for host in [HOST, KEPT] {
            api.scan(host).await;
        }
        for alias in ["python", "py"] {
            let target = format!("{HOST}/lab/python:3.12");
            api.does("alias_image", &format!("alias: {alias:?}, target: {target:?}")).await;
        }
        let query = "mutation($h: String!, $p: CreateContainerRegistryInput!) {
            create_container_registry(hostname: $h, props: $p) { container_registry { hostname } } }";
        let props = json!({
            "url": NOWHERE, "type": "harbor2", "project": ["stable", "community"], "username": "robot",
            "password": PASSWORD, "ssl_verify": false, "is_global": false, "kernelspec_only": true,
            "trusted_hosts": ["auth.lab.example"], "ca_pem": CERTIFICATE,
        });
        api.ask(query, json!({"h": OTHER, "p": props})).await;
    }

    async fn tasks(&self) {
        let (api, busybox) = (self.api(), format!("{HOST}/other/busybox:latest"));
        for field in ["preload_image", "unload_image"] {
            let (end, task) = api.transfer_to_end(field, &busybox, &self.one).await;
            assert!(end.ends_with("done"), "{task:#}");
        }
        // A rule that does what it is for, and meets an image that is broken.
        self.registry.turn(|request| {
            let is_gone = request.path().contains("/lab/broken/blobs/");
            is_gone.then(|| Answer::from(Response::new(404)))
        });
        let query = "mutation($p: CreatePreloadRuleInput!) { create_preload_rule(name: \"standard\", props: $p) { ok } }";
        let props = json!({"images": format!("{HOST}/lab/*"), "target_agents": self.one});
        api.ask(query, json!({"p": props})).await;
        until("the rule to have done what it can", PATIENCE * 4, async || {
            (answer(&api, STANDARD).await["preload_rule"]["status"] == json!({"held_back": 1, "present": 2}))
                .then_some(())
        })
        .await;
        let pin = format!("reference: {busybox:?}, target_agents: \"gpu[01-16]\"");
        api.does("pin_image", &pin).await;
        let query = "mutation($p: CreateRetentionRuleInput!) { create_retention_rule(name: \"old\", props: $p) { ok } }";
        let props = json!({"images": "*", "target_agents": "gpu[01-16]", "unused_for": 2_592_000, "keep_last": 2,
            "when_below": 50_000_000_000_u64, "until": 80_000_000_000_u64, "unknown_images": true,
            "window": "22:00-06:00", "time_zone": "Asia/Seoul"});
        api.ask(query, json!({"p": props})).await;
        // One that does not end: it waits for the agent that is away.
        api.transfer("preload_image", &busybox, DIALS_IN).await;
        // The password is said again, for it belongs to the address before.
        let query = "mutation($h: String!, $p: ModifyContainerRegistryInput!) {
            modify_container_registry(hostname: $h, props: $p) { container_registry { hostname } } }";
        let props = json!({"url": NOWHERE, "username": USER, "password": PASSWORD});
        api.ask(query, json!({"h": HOST, "p": props})).await;
        let failed = api.finish(&api.rescan(HOST).await).await;
        assert!(failed.name.ends_with("failed"), "{failed:?}");
    }

    /// Has people come in, stops it, and returns what was in it.
    pub async fn end(&mut self) -> Value {
        let api = self.api();
        let query = "mutation($s: String!) { create_api_token(name: $s, scope: $s) { token } }";
        api.ask(query, json!({"s": "read"})).await;
        let token = api.ask(query, json!({"s": "full"})).await["create_api_token"]["token"].take();
        let cookie = Visitor::admin(&self.app).await.cookie;
        let moment = Timestamp::now();
        for _ in 0..FAILURES {
            let reply = Visitor::of(&self.app).sign_in(TRIED, "not the password").await;
            assert_eq!(reply.json()["authenticated"], false, "{}", reply.text());
        }
        let (lasting, passing) = (answers(&api, LASTING).await, answers(&api, PASSING).await);
        self.app.terminate().await;
        json!({
            "moment": moment.to_string(),
            "lasting": lasting,
            "passing": passing,
            "agent": self.one,
            "keypairs": self.keypairs,
            "passwords": {ADMIN_EMAIL: ADMIN_PASSWORD, "ann@lab.example": PERSONAL, "bob@lab.example": PERSONAL},
            "registry_passwords": {HOST: PASSWORD, OTHER: PASSWORD},
            "token": token,
            "cookie": cookie,
            "tried": TRIED,
        })
    }
}

/// A registry with the images that are read.
pub async fn shelf() -> Shelf {
    let python = |tag: &str| Image::new("lab/python", tag).real_layers(2, 2_000);
    Shelf::start([
        python("3.12")
            .platforms(&["linux/amd64", "linux/arm64"])
            .label("ai.backend.resource.min.mem", "1g")
            .label("ai.backend.accelerators", "cuda"),
        python("3.13").attested().label("org.opencontainers.image.title", "Python"),
        Image::new("lab/broken", "1").real_layers(1, 2_000),
        Image::vanilla("other/busybox", "latest").real_layers(1, 2_000),
        Image::helm("other/chart", "1"),
    ])
    .await
}

/// The answers to questions, by question.
async fn answers(api: &Api, questions: &[&str]) -> Value {
    let mut found = serde_json::Map::new();
    for question in questions {
        found.insert((*question).to_owned(), answer(api, question).await);
    }
    found.into()
}

/// The answer to a question, with its lists in one order.
pub async fn answer(api: &Api, question: &str) -> Value {
    in_order(api.ask(question, json!({})).await)
}

/// A value whose lists have one order.
pub fn in_order(value: Value) -> Value {
    match value {
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(in_order).collect();
            list.sort_by_key(Value::to_string);
            list.into()
        }
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, in_order(value))).collect(),
        other => other,
    }
}
