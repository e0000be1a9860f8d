//! Who sees which image, on every surface: list, lookup, alias, pages, presence, explanation.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::dockerd::RealDocker;
use crate::support::image::Image;
use crate::support::people::Person;
use crate::support::registry::RealRegistry;
use crate::support::wait::{PATIENCE, until};

const OWNER: &str = "ai.backend.customized-image.owner";

/// A server that has read two registries; the domain of all users may see the first.
struct Scene {
    app: App,
    open: RealRegistry,
    secret: RealRegistry,
    ann: Person,
    bob: Person,
}

impl Scene {
    async fn set() -> Option<Self> {
        let (open, secret) = (RealRegistry::open().await?, RealRegistry::open().await?);
        let app = App::start().await;
        let ann = app.person("ann@test.invalid", "user", "default").await;
        let bob = app.person("bob@test.invalid", "admin", "default").await;
        for tag in ["3.8", "3.9", "3.10"] {
            open.push(&Image::new("stable/python", tag)).await;
        }
        open.push(&Image::new("stable/operator", "1").label("ai.backend.features", "operation")).await;
        let own = Image::new("own/python", "mine").label(OWNER, &format!("user:{}", bob.id));
        open.push(&own.label("ai.backend.customized-image.name", "bobs")).await;
        secret.push(&Image::new("hidden/weights", "7")).await;
        let admin = app.admin();
        for registry in [&open, &secret] {
            admin.add_registry(registry).await;
            admin.scan(registry.host()).await;
        }
        let hidden = format!("{}/hidden/weights:7", secret.host());
        let own = format!("{}/own/python:mine", open.host());
        for (alias, target) in [("secret-weights", hidden), ("bobs-python", own)] {
            let done = admin.mutate("alias_image", &format!("alias: {alias:?}, target: {target:?}")).await;
            assert!(done.0, "{done:?}");
        }
        admin.allow_registries("default", &[open.host()]).await;
        Some(Self { app, open, secret, ann, bob })
    }
}

/// Returns `name:tag` of a list, and of all pages of nodes, which must agree.
async fn seen(api: &Api) -> BTreeSet<String> {
    let named =
        |image: &Value| format!("{}:{}", image["name"].as_str().unwrap(), image["tag"].as_str().unwrap());
    let data = api
        .ask(
            "{ images { name tag } image_nodes(first: 100) { count edges { node { name tag } } } }",
            json!({}),
        )
        .await;
    let list: BTreeSet<_> = data["images"].as_array().unwrap().iter().map(named).collect();
    let edges = data["image_nodes"]["edges"].as_array().unwrap();
    assert_eq!(edges.iter().map(|edge| named(&edge["node"])).collect::<BTreeSet<_>>(), list);
    assert_eq!(data["image_nodes"]["count"], list.len());
    list
}

/// Returns the whole error for a missing image, without the reference itself.
async fn missing(api: &Api, reference: &str) -> String {
    let answer =
        api.graphql("query($r: String!) { image(reference: $r) { name } }", json!({"r": reference})).await;
    assert!(answer["data"]["image"].is_null(), "{reference} was found: {answer}");
    answer["errors"].to_string().replace(reference, "REFERENCE")
}

#[tokio::test]
async fn what_is_hidden_is_hidden_behind_every_door() {
    let Some(scene) = Scene::set().await else { return };
    let (admin, ann, bob) = (scene.app.admin(), scene.ann.api, scene.bob.api);
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let open = ["stable/python:3.8", "stable/python:3.9", "stable/python:3.10", "stable/operator:1"];
    assert_eq!(seen(&ann).await, set(&open));
    assert_eq!(seen(&bob).await, set(&[&open[..], &["own/python:mine"]].concat()));
    assert_eq!(seen(&admin).await.len(), 6);

    let details = admin.ask("{ images { id digest manifest_digest name tag registry } }", json!({})).await;
    let unknown = missing(&ann, "nothing/like:this").await;
    for image in details["images"].as_array().unwrap() {
        let text = |field: &str| image[field].as_str().unwrap().to_owned();
        let name = format!("{}:{}", text("name"), text("tag"));
        let names = [
            format!("{}/{name}", text("registry")),
            name,
            text("id"),
            text("digest"),
            text("manifest_digest"),
        ];
        for reference in names {
            if open.contains(&&*format!("{}:{}", text("name"), text("tag"))) {
                ann.ask("query($r: String!) { image(reference: $r) { name } }", json!({"r": reference}))
                    .await;
            } else {
                assert_eq!(missing(&ann, &reference).await, unknown, "{reference}");
            }
        }
    }
    for alias in ["secret-weights", "bobs-python"] {
        assert_eq!(missing(&ann, alias).await, unknown, "{alias}");
        let explain = "query($r: String!) { explain_image_access(reference: $r) { visible } }";
        let refused = ann.refused(explain, json!({"r": alias})).await;
        assert_eq!(refused, format!("no such image: {alias}"));
    }
    bob.ask("{ image(reference: \"bobs-python\") { name } }", json!({})).await;

    for document in [
        "{ image_presence(reference: \"secret-weights\") { state } }",
        "{ preload_plan(reference: \"secret-weights\", target_agents: \"*\") { __typename } }",
    ] {
        assert!(ann.refused(document, json!({})).await.starts_with("no permission"), "{document}");
    }
    let tasks = ann.ask("{ background_tasks { id subject } }", json!({})).await;
    assert_eq!(tasks["background_tasks"], json!([]));
}

#[tokio::test]
async fn customized_and_operation_images_are_told_apart() {
    let Some(scene) = Scene::set().await else { return };
    let (admin, ann, bob) = (scene.app.admin(), scene.ann.api, scene.bob.api);
    // The document of the official clients, which look for exactly one label of that name.
    let customized =
        "query{customized_images{id name registry architecture tag size_bytes labels{key value}}}";
    for (api, count) in [(&admin, 1), (&bob, 1), (&ann, 0)] {
        let data = api.ask(customized, json!({})).await;
        let images = data["customized_images"].as_array().unwrap();
        assert_eq!(images.len(), count, "{data}");
        for image in images {
            let named = |label: &&Value| label["key"] == "ai.backend.customized-image.name";
            assert_eq!(image["labels"].as_array().unwrap().iter().filter(named).count(), 1, "{image}");
        }
    }
    let kinds = "query($k: [String]) { images(load_filters: $k) { name } }";
    for (api, wanted, count) in [
        (&bob, json!(["customized"]), 1),
        (&ann, json!(["customized"]), 0),
        (&admin, json!(["customized"]), 1),
        (&ann, json!(["operational"]), 1),
        (&bob, json!(["general"]), 3),
        (&bob, json!(["general", "operational", "customized"]), 5),
        (&bob, json!(null), 5),
    ] {
        let data = api.ask(kinds, json!({"k": wanted})).await;
        assert_eq!(data["images"].as_array().unwrap().len(), count, "{wanted}: {data}");
    }
    let refused = ann.refused(kinds, json!({"k": ["custom"]})).await;
    assert!(refused.contains("\"custom\" is none of general, operational, customized"), "{refused}");
}

#[tokio::test]
async fn an_explanation_names_what_would_change_it() {
    let Some(scene) = Scene::set().await else { return };
    let (admin, ann) = (scene.app.admin(), scene.ann.api);
    let explain = "query($r: String!, $u: String, $g: String) { explain_image_access(reference: $r, user: $u, group: $g) {
        reference user visible conditions { name value holds remedy } } }";
    let ask = async |api: &Api, reference: &str, user: Option<&str>, group: Option<&str>| {
        api.ask(explain, json!({"r": reference, "u": user, "g": group})).await["explain_image_access"].take()
    };
    let hidden = ask(&admin, "secret-weights", Some(&scene.ann.email), None).await;
    assert_eq!(hidden["visible"], false);
    let remedy = format!("add {} to allowed_docker_registries of domain default", scene.secret.host());
    assert_eq!(hidden["conditions"][0]["remedy"], remedy, "{hidden:#}");

    let bobs = ask(&admin, "bobs-python", Some(&scene.ann.id), None).await;
    assert_eq!((&bobs["visible"], &bobs["user"]), (&json!(false), &json!(scene.ann.email)));
    let holds: Vec<_> =
        bobs["conditions"].as_array().unwrap().iter().map(|c| (&c["name"], &c["holds"])).collect();
    assert_eq!(holds, [(&json!("registry"), &json!(true)), (&json!("owner"), &json!(false))], "{bobs:#}");
    assert_eq!(ask(&admin, "bobs-python", Some(&scene.bob.email), None).await["visible"], true);

    let python = format!("{}/stable/python:3.9", scene.open.host());
    assert_eq!(ask(&ann, &python, None, None).await["visible"], true);
    let grouped = ask(&ann, &python, Some(&scene.ann.email), Some("vision")).await;
    assert_eq!(grouped["visible"], false);
    let remedy = "ann@test.invalid must be a member of group vision in domain default";
    assert_eq!(grouped["conditions"][1]["remedy"], remedy, "{grouped:#}");
    let refused = ann.refused(explain, json!({"r": python, "u": scene.bob.email})).await;
    assert_eq!(refused, "no permission to execute explain_image_access for another user");
    let refused = admin.refused(explain, json!({"r": python, "u": "carl@test.invalid"})).await;
    assert_eq!(refused, "no such user: carl@test.invalid");
}

#[tokio::test]
async fn nodes_are_filtered_ordered_and_paged() {
    let Some(scene) = Scene::set().await else { return };
    let ann = scene.ann.api;
    let nodes = "query($f: String, $o: String, $n: Int, $a: String, $l: Int, $b: String) {
        image_nodes(filter: $f, order: $o, first: $n, after: $a, last: $l, before: $b) {
          count pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
          edges { cursor node { id row_id name tag permissions type installed } } } }";
    let tags = |page: &Value| {
        let edges = page["edges"].as_array().unwrap();
        edges.iter().map(|edge| edge["node"]["tag"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let mut asked =
        json!({"f": "name like \"%/pyth_n\" & tag in [\"3.8\", \"3.9\", \"3.10\"]", "o": "-tag", "n": 2});
    let page = ann.ask(nodes, asked.clone()).await["image_nodes"].take();
    assert_eq!((tags(&page), &page["count"]), (vec!["3.9".into(), "3.8".into()], &json!(3)));
    assert_eq!(page["pageInfo"]["hasNextPage"], true);
    let node = &page["edges"][0]["node"];
    assert_eq!(node["permissions"], json!(["read_attribute", "create_container"]));
    asked["a"] = page["pageInfo"]["endCursor"].clone();
    let page = ann.ask(nodes, asked).await["image_nodes"].take();
    assert_eq!(tags(&page), ["3.10"]);
    assert_eq!(
        (&page["pageInfo"]["hasNextPage"], &page["pageInfo"]["hasPreviousPage"]),
        (&json!(false), &json!(true))
    );
    let back = json!({"f": "name == \"stable/python\"", "o": "tag", "l": 1});
    let page = ann.ask(nodes, back).await["image_nodes"].take();
    assert_eq!((tags(&page), &page["pageInfo"]["hasPreviousPage"]), (vec!["3.9".into()], &json!(true)));

    // Each of its ids finds the same node.
    for id in [&node["id"], &node["row_id"]] {
        let data = ann
            .ask(
                "query($id: GlobalIDField!, $text: String!) { image_node(id: $id) { id tag } image(id: $text) { tag } }",
                json!({"id": id, "text": id}),
            )
            .await;
        assert_eq!((&data["image_node"]["id"], &data["image"]["tag"]), (&node["id"], &node["tag"]), "{id}");
    }
    for (arguments, expected) in [
        ("filter: \"nmae == 1\"", "filter: at character 1: there is no field \"nmae\""),
        ("filter: \"name = 1\"", "filter: at character 6: expected an operator"),
        ("order: \"colour\"", "order: rows are not ordered by \"colour\""),
        ("after: \"x\"", "cursor: it is none of this list's"),
        ("scope_id: \"planet:mars\"", "scope_id: \"planet:mars\" is none of"),
        ("domain: \"default\"", "no permission to execute"),
        ("scope_id: \"domain:default\", permission: \"fly\"", "permission: \"fly\" is none of"),
    ] {
        let refused = ann.refused(&format!("{{ image_nodes({arguments}) {{ count }} }}"), json!({})).await;
        assert!(refused.contains(expected), "{arguments}: {refused}");
    }
    let own = ann.ask("{ image_nodes(scope_id: \"domain:default\") { count } }", json!({})).await;
    assert_eq!(own["image_nodes"]["count"], 4);
    let forgettable = ann.ask("{ image_nodes(permission: \"forget_image\") { count } }", json!({})).await;
    assert_eq!(forgettable["image_nodes"]["count"], 0);
}

#[tokio::test]
async fn with_a_group_only_what_its_agents_have_is_seen() {
    let (Some(registry), Some(docker)) = (RealRegistry::open().await, RealDocker::start().await) else {
        return;
    };
    for tag in ["there", "elsewhere"] {
        registry.push(&Image::new("lab/python", tag).real_layers(1, 10_000).content(tag)).await;
    }
    let engine = docker.url();
    let app = App::start_with(move |command| {
        command.args(["--engine", &engine]);
    })
    .await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    admin.scan(registry.host()).await;
    let there = format!("{}/lab/python:there", registry.host());
    docker.docker_ok(&["pull", "-q", &there]).await;
    let ann = app.person("ann@test.invalid", "user", "default").await;
    let bob = app.person("bob@test.invalid", "user", "default").await;
    admin.allow_registries("default", &[registry.host()]).await;
    let of_domain = "scaling_group: \"default\", domain: \"default\"";
    admin.does("disassociate_scaling_group_with_domain", of_domain).await;
    admin
        .does("create_scaling_group", "name: \"asr\", props: {driver: \"static\", scheduler: \"fifo\"}")
        .await;
    for (group, scaling_group) in [("vision", "default"), ("speech", "asr")] {
        admin.does("create_group", &format!("name: \"{group}\", props: {{domain_name: \"default\"}}")).await;
        let id = admin.group_id(group).await;
        let joins =
            format!("gid: \"{id}\", props: {{user_update_mode: \"add\", user_uuids: [\"{}\"]}}", ann.id);
        admin.does("modify_group", &joins).await;
        let uses = format!("scaling_group: \"{scaling_group}\", user_group: \"{id}\"");
        admin.does("associate_scaling_group_with_user_group", &uses).await;
    }
    let (ann, bob) = (ann.api, bob.api);
    until("the image to be seen on its agent", PATIENCE, async || {
        let query = "query($r: String!) { image_presence(reference: $r) { state } }";
        let data = admin.ask(query, json!({"r": there})).await;
        (data["image_presence"][0]["state"] == "present").then_some(())
    })
    .await;

    let list = async |api: &Api, arguments: &str| {
        let document = format!(
            "{{ images({arguments}) {{ tag }} image_nodes({arguments}) {{ edges {{ node {{ tag }} }} }} }}"
        );
        let data = api.ask(&document, json!({})).await;
        let tags: Vec<_> = data["images"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["tag"].as_str().unwrap().to_owned())
            .collect();
        let nodes = data["image_nodes"]["edges"].as_array().unwrap();
        assert_eq!(
            nodes.iter().map(|edge| &edge["node"]["tag"]).collect::<Vec<_>>(),
            tags.iter().collect::<Vec<_>>()
        );
        tags
    };
    for (api, arguments, expected) in [
        (&ann, "is_installed: true", vec!["there"]),
        (&ann, "is_installed: false", vec!["elsewhere"]),
        (&ann, "group: \"vision\"", vec!["there"]),
        (&ann, "group: \"vision\", scaling_group: \"default\"", vec!["there"]),
        (&ann, "scaling_group: \"default\"", vec!["there"]),
        (&ann, "group: \"speech\"", vec![]),
        (&ann, "group: \"vision\", scaling_group: \"asr\"", vec![]),
        (&bob, "group: \"vision\"", vec![]),
        (&bob, "scaling_group: \"default\"", vec![]),
        (&admin, "group: \"vision\"", vec!["there"]),
        (&admin, "domain: \"default\", group: \"speech\"", vec![]),
    ] {
        assert_eq!(list(api, arguments).await, expected, "{arguments}");
    }
    // Only super-admins may know where an image is.
    let where_it_is = "{ images(is_installed: true) { installed installed_agents } }";
    let told = ann.ask(where_it_is, json!({})).await;
    assert_eq!(told["images"], json!([{"installed": true, "installed_agents": null}]));
    let told = admin.ask(where_it_is, json!({})).await;
    assert_eq!(told["images"][0]["installed_agents"].as_array().map(Vec::len), Some(1), "{told}");
    let explain = "query($r: String!) { explain_image_access(reference: $r, group: \"vision\") {
        visible conditions { name value holds remedy } } }";
    let data = ann.ask(explain, json!({"r": there})).await;
    assert_eq!(data["explain_image_access"]["visible"], true, "{data:#}");
    let data = ann.ask(explain, json!({"r": there.replace("there", "elsewhere")})).await;
    let agents = &data["explain_image_access"]["conditions"][1];
    assert_eq!(agents["remedy"], "load the image onto an agent of default with preload_image", "{data:#}");
}
