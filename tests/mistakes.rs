//! Mutations that can't be done: each answers `ok: false`, names the thing and the remedy, and changes nothing.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

/// Returns everything a mutation could have changed.
async fn state(api: &Api) -> Value {
    let mut images = api.images().await;
    images.sort_by_key(Value::to_string);
    let rest = api
        .ask(
            "{ container_registries { hostname config { url type username ssl_verify } } background_tasks { id state } }",
            json!({}),
        )
        .await;
    json!({"images": images, "rest": rest})
}

/// A mutation and its arguments, and what the answer must name.
type Case = ((&'static str, String), &'static str);

fn cases(host: &str) -> Vec<Case> {
    let (a1, b1) = (format!("{host}/r/a:1"), format!("{host}/r/b:1"));
    let long = "x".repeat(1500);
    let digest = format!("sha256:{}", "0".repeat(64));
    let alias = |alias: &str, target: &str| {
        ("alias_image", format!("alias: {}, target: {}", json!(alias), json!(target)))
    };
    let forget = |reference: &str| ("forget_image", format!("reference: {}", json!(reference)));
    let dealias = |alias: &str| ("dealias_image", format!("alias: {}", json!(alias)));
    let rescan = |arguments: String| ("rescan_images", arguments);
    let scan = |reference: &str| ("scan_image", format!("reference: {}", json!(reference)));
    let on = |action: &'static str, reference: &str, agents: &str| {
        (action, format!("reference: {}, target_agents: {}", json!(reference), json!(agents)))
    };
    let mut cases = vec![
        (alias("", &a1), "alias: it is empty"),
        (alias("   ", &a1), "alias: it is empty"),
        (alias("a b", &a1), "\"a b\" may have visible ASCII characters only"),
        (alias("é", &a1), "visible ASCII characters only"),
        (alias("a\u{0}b", &a1), "visible ASCII characters only"),
        (alias("\u{202e}x", &a1), "visible ASCII characters only"),
        (alias(&long, &a1), "is longer than 255 bytes"),
        (alias("a@b", &a1), "choose a name"),
        (alias("http://x", &a1), "choose a name"),
        (alias(&digest, &a1), "choose a name"),
        (alias("taken", &a1), "dealias it first"),
        (alias("taken", &b1), "taken is an alias of"),
        (alias("new", "taken"), "taken is an alias; name the image itself: "),
        (alias("new", "other"), "r/a:2"),
        (alias(&a1, &b1), "is an image's own name; choose another alias"),
        (alias("new", "nowhere/at:all"), "no such image: nowhere/at:all"),
        (alias("new", "r/a:1"), "give the registry and the tag as well"),
        (alias("new", &b1), "has several architectures: "),
        (alias("new", ""), "reference: "),
        (alias("new", "https://cr.io/a:1"), "protocol scheme"),
        (alias("new", "a@sha256:12"), "sha256"),
        (alias("new", &digest), "no such image"),
        (dealias("nobody"), "no such alias: nobody"),
        (dealias(""), "no such alias"),
        (dealias(&a1), "no such alias"),
        (forget("nowhere/at:all"), "no such image: nowhere/at:all"),
        (forget(""), "reference: "),
        (forget("a b"), "reference: "),
        (forget("a:"), "tag"),
        (forget("r/a:1"), "names 2 images"),
        (rescan("registry: \"nowhere.invalid\"".into()), "nowhere.invalid"),
        (rescan("registry: \"\"".into()), "no such"),
        (rescan(format!("registry: \"{host}\", project: \"../x\"")), "is no repository name"),
        (rescan(format!("registry: \"{host}\", project: \"A B\"")), "is no repository name"),
        (scan("nowhere.invalid/a:1"), "nowhere.invalid"),
        (scan("py"), "has no registry; give registry/name:tag"),
        (scan(&format!("{host}/UPPER:1")), "name"),
        (scan(&format!("{host}/r/a@{digest}")), "has a digest"),
        (scan(""), "reference: "),
        (scan(&format!("{host}/r/a:-1")), "tag"),
    ];
    for action in ["preload_image", "unload_image"] {
        cases.extend([
            (on(action, &a1, ""), "target_agents: EMPTY at 0"),
            (on(action, &a1, "  "), "target_agents: EMPTY"),
            (on(action, &a1, "gpu[4-1]"), "target_agents: RANGE_REVERSED at 3"),
            (on(action, &a1, "*"), "no agent"),
            (on(action, &a1, "i-nobody"), "no agent"),
            (on(action, "nowhere/at:all", "*"), "no such image: nowhere/at:all"),
            (on(action, "", "*"), "reference: "),
            (on(action, "a b", "*"), "reference: "),
        ]);
    }
    cases
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_the_remedy_and_changes_nothing() {
    let registry = Shelf::start([
        Image::new("r/a", "1"),
        Image::new("r/a", "2"),
        Image::new("r/b", "1").platforms(&["linux/arm64", "linux/s390x"]),
    ])
    .await;
    let other = Shelf::start([Image::new("r/a", "1").content("other")]).await;
    let app = App::start().await;
    let api = app.admin();
    for shelf in [&registry, &other] {
        api.add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
        api.scan(&shelf.host()).await;
    }
    let host = registry.host();
    let a1 = format!("{host}/r/a:1");
    for (alias, target) in [("taken", &a1), ("other", &format!("{host}/r/a:2"))] {
        assert!(api.mutate("alias_image", &format!("alias: \"{alias}\", target: \"{target}\"")).await.0);
    }
    let before = state(&api).await;

    for ((field, arguments), says) in cases(&host) {
        let starts = matches!(field, "rescan_images" | "scan_image" | "preload_image" | "unload_image");
        let fields = if starts { "ok msg task_id" } else { "ok msg" };
        let data = api.ask(&format!("mutation {{ {field}({arguments}) {{ {fields} }} }}"), json!({})).await;
        let answer = &data[field];
        let shown: String = arguments.chars().take(80).collect();
        assert_eq!(answer["ok"], false, "{field}({shown}): {answer}");
        assert!(answer["task_id"].is_null(), "{field}({shown}): {answer}");
        let msg = answer["msg"].as_str().unwrap_or_default();
        assert!(msg.contains(says), "{field}({shown}) does not say {says:?}: {msg}");
        assert!(!msg.contains("internal error") && msg.len() < 600, "{field}({shown}): {msg}");
        // One line, except for an expression with its caret below it.
        let said = if msg.starts_with("target_agents: ") { msg.replace('\n', "") } else { msg.to_owned() };
        assert!(!said.chars().any(|c| c.is_control() || c == '\u{202e}'), "{field}({shown}): {msg:?}");
    }
    assert_eq!(state(&api).await, before);

    // A caller without credentials learns only that they may not do it.
    for field in ["forget_image(reference: \"x\")", "alias_image(alias: \"a\", target: \"b\")"] {
        let reply = app.anonymous().call("POST", "/admin/gql");
        let reply =
            reply.json(&json!({"query": format!("mutation {{ {field} {{ ok msg }} }}")})).send().await;
        assert_eq!(reply.status, 401, "{}", reply.text());
    }
    assert_eq!(state(&api).await, before);
}
