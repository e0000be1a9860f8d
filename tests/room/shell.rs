//! Tests of `wharf retention`, `wharf image pin` and `wharf agent images`.

use super::{Scene, image};
use crate::support::dockerd::RealDocker;

#[tokio::test]
async fn retention_and_pins_are_administered_from_the_shell() {
    let Some(docker) = RealDocker::start().await else { return };
    let images = ["a", "b", "c"].map(|name| image(&format!("lab/{name}"), "1", 10_000));
    let Some(scene) = Scene::set(docker, &images).await else { return };
    let wharf = async |arguments: &[&str]| {
        let outcome = scene.wharf(arguments).await;
        assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.text());
        outcome.stdout
    };
    let (a, b) = (scene.name("lab/a:1"), scene.name("lab/b:1"));
    wharf(&["image", "pin", &a]).await;
    wharf(&["image", "pin", &b, &scene.agent]).await;
    let pins = wharf(&["image", "pins"]).await;
    assert!(pins.contains(&a) && pins.contains(&scene.agent), "{pins}");
    wharf(&["image", "unpin", &b]).await;
    let images = wharf(&["agent", "images", &scene.agent]).await;
    assert!(images.contains("pinned") && images.contains("not since"), "{images}");

    let rule = ["retention", "add", "full", "*", "*", "--when-below", "1000TiB"];
    let plan = wharf(&[&rule[..], &["--plan"]].concat()).await;
    assert!(plan.contains("2 of 3 images") && plan.contains(&b) && !plan.contains(&a), "{plan}");
    assert!(plan.contains("--confirm is needed") && plan.contains("Nothing was removed."), "{plan}");
    let refused = scene.wharf(&rule).await;
    assert_eq!(refused.code, 1, "{}", refused.text());
    assert!(refused.stderr.contains("confirm"), "{}", refused.text());
    wharf(&[&rule[..], &["--disabled", "--confirm"]].concat()).await;
    let list = wharf(&["retention", "list"]).await;
    assert!(list.contains("full") && list.contains("disabled"), "{list}");
    wharf(&["retention", "change", "full", "--unused-for", "30d", "--keep-last", "2"]).await;
    let page = wharf(&["retention", "show", "full"]).await;
    assert!(page.contains("unused for 30d, all but the last 2"), "{page}");
    let plan = wharf(&["retention", "plan", "full"]).await;
    assert!(plan.contains("0 of 3 images"), "{plan}");
    wharf(&["retention", "enable", "full"]).await;
    wharf(&["retention", "remove", "full"]).await;
    assert_eq!(wharf(&["retention", "list", "--json"]).await.trim(), "[]");

    scene.api().does("forget_image", &format!("reference: {b:?}")).await;
    let unknown = wharf(&["image", "unknown"]).await;
    assert!(unknown.contains(&b) && !unknown.contains(&a), "{unknown}");
    let plan = wharf(&["unload", &b, "*", "--plan"]).await;
    assert!(plan.contains("to-remove"), "{plan}");
    wharf(&["unload", &b, "*"]).await;
    assert_eq!(scene.listed().await, ["lab/a:1", "lab/c:1"]);
}
