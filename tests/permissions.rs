//! Who may do and see what, for the whole schema: these tests cover a new mutation or query automatically.

use std::collections::HashMap;
use std::path::Path;

use async_graphql_parser::parse_schema;
use async_graphql_parser::types::{
    BaseType, FieldDefinition, ObjectType, Type, TypeKind, TypeSystemDefinition,
};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::{ADMIN_EMAIL, App};
use crate::support::people::Person;

/// The checked-in schema, which another test compares with the served one.
struct Schema(HashMap<String, TypeKind>);

impl Schema {
    fn read() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/graphql/schema.graphql");
        let document = parse_schema(std::fs::read_to_string(path).unwrap()).unwrap();
        let kinds = document.definitions.into_iter().filter_map(|definition| match definition {
            TypeSystemDefinition::Type(kind) => Some((kind.node.name.node.to_string(), kind.node.kind)),
            _ => None,
        });
        Self(kinds.collect())
    }

    fn object(&self, name: &str) -> Option<&ObjectType> {
        match self.0.get(name)? {
            TypeKind::Object(object) => Some(object),
            _ => None,
        }
    }

    fn fields(&self, root: &str) -> Vec<&FieldDefinition> {
        self.object(root).unwrap().fields.iter().map(|field| &field.node).collect()
    }

    /// Returns a selection of everything below a field that needs no arguments.
    fn selection(&self, ty: &Type, depth: usize) -> String {
        let Some(object) = self.object(named(ty)) else { return String::new() };
        let askable = object.fields.iter().map(|field| &field.node).filter(|field| {
            field.arguments.iter().all(|argument| argument.node.ty.node.nullable)
                && (depth > 0 || self.object(named(&field.ty.node)).is_none())
        });
        let fields: Vec<String> = askable
            .map(|field| {
                format!("{} {}", field.name.node, self.selection(&field.ty.node, depth.saturating_sub(1)))
            })
            .collect();
        format!("{{ {} }}", fields.join(" "))
    }
}

/// Returns an answer without the times at which credentials were last used, which change with each request.
fn without_time_of_use(mut answer: Value) -> Value {
    match &mut answer {
        Value::Object(fields) => {
            fields.remove("last_used");
            for value in fields.values_mut() {
                *value = without_time_of_use(value.take());
            }
        }
        Value::Array(values) => {
            for value in values {
                *value = without_time_of_use(value.take());
            }
        }
        _ => {}
    }
    answer
}

fn named(ty: &Type) -> &str {
    match &ty.base {
        BaseType::Named(name) => name.as_str(),
        BaseType::List(inner) => named(inner),
    }
}

/// The mutations that every user may run, and only on their own things.
const OWN: [&str; 2] = ["create_api_token", "sign_out_everywhere"];

/// The names that a document's arguments use.
#[derive(Clone)]
struct Target {
    domain: String,
    email: String,
    user: String,
    group: String,
    scaling_group: String,
    access_key: String,
}

impl Target {
    /// Returns names of things that do not exist.
    fn nothing() -> Self {
        Self {
            domain: "zz-none".into(),
            email: "zz-none@x".into(),
            user: "00000000-0000-4000-8000-000000000001".into(),
            group: "00000000-0000-4000-8000-000000000002".into(),
            scaling_group: "zz-none-sg".into(),
            access_key: "AKIAZZNONE".into(),
        }
    }

    /// Returns every name, so that echoed input can be told from found data.
    fn names(&self) -> [&str; 6] {
        [&self.domain, &self.email, &self.user, &self.group, &self.scaling_group, &self.access_key]
    }

    /// Returns a value for a field's argument.
    fn value(&self, field: &str, argument: &str, ty: &Type) -> Value {
        let text = match argument {
            "name" if field.contains("scaling_group") => &self.scaling_group,
            "name" if field.contains("group") => "zz-foreign-group",
            "name" | "domain" | "domain_name" => &self.domain,
            "scaling_group" => &self.scaling_group,
            "email" => &self.email,
            "user_id" => &self.user,
            "gid" | "user_group" | "group_id" => &self.group,
            "id" if field.starts_with("group") => &self.group,
            "access_key" => &self.access_key,
            "scope" => "read",
            _ => "zz-unknown",
        };
        let value = match named(ty) {
            "String" | "ID" => json!(text),
            "UUID" => json!(if text.len() == 36 { text } else { &self.group }),
            "Int" if argument == "offset" => json!(0),
            "Int" | "BigInt" => json!(9),
            "Boolean" => json!(true),
            "UserInput" => json!({"password": "a long password", "domain_name": self.domain}),
            "GroupInput" => json!({"domain_name": self.domain}),
            "CreateRetentionRuleInput" => {
                json!({"images": "zz-none/*", "target_agents": "zz-none", "keep_last": 9})
            }
            "CreatePreloadRuleInput" => json!({"images": "zz-none/*", "target_agents": "zz-none"}),
            "ModifyGroupInput" | "ModifyUserInput" | "ModifyDomainInput" => json!({"description": "changed"}),
            _ => json!({}),
        };
        if matches!(ty.base, BaseType::List(_)) { json!([value]) } else { value }
    }

    /// Returns a document for one field; `is_taken` says which arguments to give.
    fn document(
        &self,
        schema: &Schema,
        root: &str,
        field: &FieldDefinition,
        is_taken: impl Fn(&str, &Type) -> bool,
    ) -> (String, Value) {
        let name = field.name.node.as_str();
        let mut variables = serde_json::Map::new();
        let (mut declared, mut given) = (Vec::new(), Vec::new());
        for argument in field.arguments.iter().map(|argument| &argument.node) {
            let (label, ty) = (argument.name.node.as_str(), &argument.ty.node);
            if is_taken(label, ty) {
                declared.push(format!("${label}: {ty}"));
                given.push(format!("{label}: ${label}"));
                variables.insert(label.to_owned(), self.value(name, label, ty));
            }
        }
        let brackets = |parts: Vec<String>| {
            if parts.is_empty() { String::new() } else { format!("({})", parts.join(", ")) }
        };
        let document = format!(
            "{root}{} {{ {name}{} {} }}",
            brackets(declared),
            brackets(given),
            schema.selection(&field.ty.node, 2)
        );
        (document, Value::Object(variables))
    }
}

/// A domain with everything in it, all of whose names begin with `zz-foreign`, and users of another domain.
struct Scene {
    app: App,
    foreign: Target,
    people: Vec<(&'static str, Person)>,
}

async fn scene() -> Scene {
    let app = App::start().await;
    let root = app.admin();
    root.does(
        "create_domain",
        r#"name: "zz-foreign", props: {description: "zz-foreign-text", allowed_docker_registries: ["zz-foreign.io"]}"#,
    )
    .await;
    root.does("create_domain", r#"name: "own", props: {}"#).await;
    root.does("create_group", r#"name: "zz-foreign-group", props: {domain_name: "zz-foreign"}"#).await;
    root.does("create_scaling_group", r#"name: "zz-foreign-sg", props: {}"#).await;
    root.does(
        "associate_scaling_group_with_domain",
        r#"scaling_group: "zz-foreign-sg", domain: "zz-foreign""#,
    )
    .await;
    root.add_registry_at("zz-foreign.io", "http://127.0.0.1:1", None).await;
    let group = root.group_id("zz-foreign-group").await;
    let props = json!({"password": "a long password", "domain_name": "zz-foreign", "group_ids": [group], "full_name": "zz-foreign"});
    let victim = app.person_with("zz-foreign@x", props).await;
    let mut people = Vec::new();
    for role in ["user", "monitor", "admin"] {
        people.push((role, app.person(&format!("{role}@own"), role, "own").await));
    }
    let foreign = Target {
        domain: "zz-foreign".into(),
        email: victim.email,
        user: victim.id,
        group,
        scaling_group: "zz-foreign-sg".into(),
        access_key: victim.access_key,
    };
    Scene { app, foreign, people }
}

/// Returns everything a mutation could have changed, except when keys were used.
async fn state(api: &Api) -> Value {
    let all = "{ domains { name description is_active allowed_docker_registries scaling_groups }
        groups { id name description is_active scaling_groups }
        scaling_groups { name description is_active }
        users { uuid email role status description domain_name modified_at groups { id } }
        keypairs { access_key is_active rate_limit }
        container_registries { hostname config { url username } }
        images { name aliases } agents { id scaling_group } background_tasks { id state } preload_rules { name } }";
    api.ask(all, json!({})).await
}

#[tokio::test]
async fn every_mutation_is_refused_to_those_who_may_not_and_changes_nothing() {
    let scene = scene().await;
    let (root, schema) = (scene.app.admin(), Schema::read());
    let before = state(&root).await;
    let mutations = schema.fields("Mutation");
    assert!(mutations.len() > 40, "{} mutations", mutations.len());
    for field in mutations {
        let name = field.name.node.as_str();
        if OWN.contains(&name) {
            continue;
        }
        let (document, variables) = scene.foreign.document(&schema, "mutation", field, |_, ty| !ty.nullable);
        let body = json!({"query": document, "variables": variables});
        let nobody = scene.app.anonymous().call("POST", "/admin/gql").json(&body).send().await;
        assert_eq!(nobody.status, 401, "{name}: {}", nobody.text());
        for (role, person) in &scene.people {
            let answer = person.api.graphql(&document, variables.clone()).await;
            let payload = &answer["data"][name];
            let is_refused = payload["ok"] == false || (payload.is_null() && !answer["errors"].is_null());
            assert!(is_refused, "{name} by {role}\n{document}\n{variables}\n{answer:#}");
        }
        assert_eq!(state(&root).await, before, "{name} changed something");
    }
}

#[tokio::test]
async fn every_mutation_leaves_one_row_in_the_audit_log_whoever_asks() {
    let scene = scene().await;
    let (root, schema, nothing) = (scene.app.admin(), Schema::read(), Target::nothing());
    let (_, user) = &scene.people[0];
    let mut last = root.audit_rows(0).await.len() as u64;
    for field in schema.fields("Mutation") {
        let name = field.name.node.as_str();
        let (document, given) = nothing.document(&schema, "mutation", field, |_, ty| !ty.nullable);
        for (api, email) in [(&user.api, user.email.as_str()), (&root, ADMIN_EMAIL)] {
            let answer = api.graphql(&document, given.clone()).await;
            let rows = root.audit_rows(last).await;
            assert_eq!(rows.len(), 1, "{name} by {email}\n{document}\n{answer:#}\n{rows:#?}");
            last += 1;
            assert_eq!((&rows[0]["action"], &rows[0]["email"]), (&json!(name), &json!(email)), "{rows:#?}");
            let is_done = rows[0]["outcome"] == "DONE";
            let said_ok = answer["errors"].is_null() && answer["data"][name]["ok"] != false;
            assert_eq!(is_done, said_ok, "{name} by {email}\n{answer:#}\n{rows:#?}");
        }
    }
}

#[tokio::test]
async fn no_query_shows_anything_of_another_domain() {
    let scene = scene().await;
    let schema = Schema::read();
    let nothing = Target::nothing();
    for field in schema.fields("Query") {
        let name = field.name.node.as_str();
        for (role, person) in &scene.people {
            // Unchanged; with foreign names in every required argument; and in each optional argument by itself.
            let optional = field.arguments.iter().filter(|argument| argument.node.ty.node.nullable);
            let mut takes: Vec<Option<&str>> = vec![None];
            takes.extend(optional.map(|argument| Some(argument.node.name.node.as_str())));
            for also in takes {
                let is_taken = |label: &str, ty: &Type| !ty.nullable || also == Some(label);
                let (document, given) = scene.foreign.document(&schema, "query", field, is_taken);
                let (_, unknown) = nothing.document(&schema, "query", field, is_taken);
                let foreign =
                    without_time_of_use(person.api.graphql(&document, given.clone()).await).to_string();
                let missing = without_time_of_use(person.api.graphql(&document, unknown).await).to_string();
                let what = format!("{name} by {role}\n{document}\n{given}\n");
                // The two may differ only by the given names that a refusal repeats.
                let echo = |text: &str, names: [&str; 6]| {
                    names.iter().fold(text.to_owned(), |text, name| text.replace(&format!(": {name}"), ": …"))
                };
                let (foreign, missing) =
                    (echo(&foreign, scene.foreign.names()), echo(&missing, nothing.names()));
                assert!(!foreign.contains("zz-foreign"), "{what}{foreign}");
                assert_eq!(foreign.replace("zz-unknown", ""), missing.replace("zz-unknown", ""), "{what}");
            }
        }
    }
}

/// The documents above do find their targets when the caller may see them.
#[tokio::test]
async fn the_same_queries_show_a_super_admin_all_of_it() {
    let scene = scene().await;
    let schema = Schema::read();
    for name in [
        "domain",
        "domains",
        "group",
        "groups",
        "groups_by_name",
        "user",
        "users",
        "user_list",
        "user_from_uuid",
        "keypair",
        "keypairs",
        "keypair_list",
        "scaling_group",
        "scaling_groups",
        "scaling_groups_for_domain",
        "container_registries",
    ] {
        let fields = schema.fields("Query");
        let field =
            fields.iter().find(|field| field.name.node == name).unwrap_or_else(|| panic!("no {name}"));
        let is_taken = |label: &str, ty: &Type| {
            !ty.nullable || ["name", "email", "user_id", "access_key"].contains(&label)
        };
        let (document, given) = scene.foreign.document(&schema, "query", field, is_taken);
        let answer = scene.app.admin().graphql(&document, given).await;
        assert!(answer["errors"].is_null(), "{document}\n{answer:#}");
        assert!(answer["data"].to_string().contains("zz-foreign"), "{document}\n{answer:#}");
    }
}

#[tokio::test]
async fn a_credential_for_reading_does_nothing_even_in_a_super_admins_hands() {
    let scene = scene().await;
    let (root, schema) = (scene.app.admin(), Schema::read());
    let made = root
        .ask(r#"mutation { create_api_token(name: "reader", scope: "read") { ok token } }"#, json!({}))
        .await;
    let token = made["create_api_token"]["token"].as_str().expect("a token").to_owned();
    let ask = |body: Value| {
        let call = scene.app.anonymous().call("POST", "/admin/gql").json(&body);
        call.header("Authorization", &format!("Bearer {token}")).send()
    };
    let read = ask(json!({"query": "{ domains { name } }"})).await.json();
    assert!(read.to_string().contains("zz-foreign"), "it reads: {read}");
    let before = state(&root).await;
    for field in schema.fields("Mutation") {
        let name = field.name.node.as_str();
        let (document, given) = scene.foreign.document(&schema, "mutation", field, |_, ty| !ty.nullable);
        let answer = ask(json!({"query": document, "variables": given})).await.json();
        let message = answer.pointer("/errors/0/message").or_else(|| answer["data"][name].get("msg"));
        let message = message.and_then(Value::as_str).unwrap_or_default();
        assert!(message.starts_with(&format!("no permission to execute {name}")), "{document}\n{answer:#}");
    }
    assert_eq!(state(&root).await, before);
}
