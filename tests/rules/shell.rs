//! Tests of `wharf rule`.

use serde_json::{Value, json};

use super::{Scene, lab};

#[tokio::test]
async fn the_shell_adds_shows_changes_and_removes_rules() {
    let Some(scene) = Scene::set(&["one"], vec![lab("python", "3"), lab("torch", "1")]).await else { return };
    let (api, app) = (scene.api(), &scene.app);
    let images = scene.name("lab/python:*");
    let plan = app.wharf(&["rule", "add", "standard", &images, "*,gpu01", "--plan"]).await;
    assert_eq!(plan.code, 0, "{}", plan.text());
    for words in
        [&scene.name("lab/python:3"), "gpu01: no agent or group is called so yet", "1, ", "Nothing was added"]
    {
        assert!(plan.stdout.contains(words), "{words}\n{}", plan.stdout);
    }
    assert_eq!(app.wharf(&["rule", "list", "--json"]).await.stdout.trim(), "[]");

    let add = [
        "rule",
        "add",
        "standard",
        &images,
        "*,gpu01",
        "--window",
        "22:00-06:00",
        "--time-zone",
        "Asia/Seoul",
    ];
    let added = app.wharf(&[add.as_slice(), &["--disabled"]].concat()).await;
    assert_eq!(added.code, 0, "{}", added.text());
    assert!(added.stdout.starts_with("added standard\ngpu01: no agent"), "{}", added.stdout);
    let list = app.wharf(&["rule", "list"]).await.stdout;
    for words in ["standard", "disabled", "22:00-06:00 Asia/Seoul", "*,gpu01", &images] {
        assert!(list.contains(words), "{words}\n{list}");
    }
    assert!(api.tasks_of("standard").await.is_empty());
    for change in [
        ["rule", "change", "standard", "--always"].as_slice(),
        &["rule", "change", "standard", "--agents", "*"],
        &["rule", "enable", "standard"],
    ] {
        let changed = app.wharf(change).await;
        assert_eq!(changed.code, 0, "{change:?}: {}", changed.text());
    }
    api.rule_is("standard", "filled").await;
    let shown = app.wharf(&["rule", "show", "standard"]).await.stdout;
    for words in ["filled", "always", "there", "last begun"] {
        assert!(shown.contains(words), "{words}\n{shown}");
    }
    let shown: Value =
        serde_json::from_str(&app.wharf(&["rule", "show", "standard", "--json"]).await.stdout).unwrap();
    assert_eq!((&shown["status"]["present"], &shown["time_zone"]), (&json!(1), &json!(null)), "{shown:#}");
    let tasks = app.wharf(&["task", "list"]).await.stdout;
    assert!(tasks.contains("by rule standard"), "{tasks}");

    assert_eq!(app.wharf(&["rule", "disable", "standard"]).await.code, 0);
    assert_eq!(api.rule("standard").await["state"], "disabled");
    let removed = app.wharf(&["rule", "remove", "standard"]).await;
    assert_eq!(
        (removed.code, removed.stdout.trim()),
        (0, "removed standard; the images stay where they are")
    );
    scene.becomes("lab/python:3", &["present"]).await;
    for (wrong, words) in [
        (["rule", "show", "standard"].as_slice(), ["no such preload rule: standard", "see wharf rule list"]),
        (&["rule", "remove", "standard"], ["no such preload rule", "wharf rule list"]),
        (&["rule", "add", "a", "python:3", "*"], ["images: ", "*/python:3"]),
        (&["rule", "add", "a", "*", "gpu[4-1]"], ["RANGE_REVERSED at 3", "gpu[4-1]\n     ^"]),
        (&["rule", "add", "a", "*", "gpu[4-1]", "--plan"], ["RANGE_REVERSED at 3", "gpu[4-1]\n     ^"]),
        (&["rule", "add", "a", "*", "*", "--window", "9-5"], ["window: ", "HH:MM-HH:MM"]),
        (&["rule", "add", "a", "*", "*", "--time-zone", "UTC"], ["time_zone: ", "give a window too"]),
    ] {
        let refused = app.wharf(wrong).await;
        assert_eq!(refused.code, 1, "{wrong:?}: {}", refused.text());
        assert!(words.iter().all(|words| refused.stderr.contains(words)), "{words:?}: {}", refused.stderr);
    }
}
