//! Many names for one image cost the same as many names for as many images.

use std::time::{Duration, Instant};

use wharf::base::ids::ImageId;
use wharf::catalog::records::ALIASES;
use wharf::store::Store;

use crate::support::app::App;
use crate::support::image::Image;
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;

const ALIASED: usize = 7_000;
/// Ten times the goal.
const DEADLINE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_image_with_thousands_of_aliases_keeps_no_start_waiting() {
    let registry = Shelf::start([Image::new("lab/python", "1"), Image::new("lab/python", "2")]).await;
    let mut app = App::start().await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    app.admin().scan(&registry.host()).await;
    app.terminate().await;
    // Through the API, each alias would be a commit of its own.
    let id = ImageId::of(&format!("{}/lab/python:1", registry.host()), "x86_64");
    let store = Store::open(&app.data_dir()).expect("a stopped server's data");
    store
        .write_now(|w| (0..ALIASED).try_for_each(|n| w.put(&ALIASES, format!("python-{n:04}"), &id)))
        .expect("aliases");
    drop(store);

    let begun = Instant::now();
    app.restart().await;
    assert!(begun.elapsed() < DEADLINE, "{:?}", begun.elapsed());
    let admin = app.admin();
    let image = admin.image("lab/python", "1", "x86_64").await;
    let aliases = image["aliases"].as_array().expect("a list");
    assert_eq!(aliases.len(), ALIASED);
    assert_eq!((&aliases[0], &aliases[ALIASED - 1]), (&"python-0000".into(), &"python-6999".into()));

    let change = async |field: &str, arguments: String| {
        let (ok, why) = admin.mutate(field, &arguments).await;
        assert!(ok, "{field}({arguments}): {why}");
    };
    change("dealias_image", "alias: \"python-0007\"".into()).await;
    let target = format!("{}/lab/python:2", registry.host());
    change("alias_image", format!("alias: \"python-0007\", target: \"{target}\"")).await;
    change("alias_image", format!("alias: \"another\", target: \"{}/lab/python:1\"", registry.host())).await;
    change("forget_image", format!("reference: \"{}/lab/python:1\"", registry.host())).await;
    let left = admin.images().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["aliases"], serde_json::json!(["python-0007"]));
    let (ok, why) = admin.mutate("dealias_image", "alias: \"another\"").await;
    assert!(!ok && why.contains("alias"), "an alias goes with its image: {why}");
}
