//! The official clients against the running binary and a real registry: what a person who has them would do.

use serde_json::Value;

use crate::support::app::App;
use crate::support::client::Client;
use crate::support::image::Image;
use crate::support::process::Outcome;
use crate::support::registry::RealRegistry;

/// Thirty images, every fifth for two platforms.
fn thirty() -> impl Iterator<Item = Image> {
    (0..30).map(|n| {
        let image = Image::new(&format!("stable/lang{}", n / 5), &format!("3.{n}-ubuntu22.04"));
        if n % 5 == 0 { image.platforms(&["linux/amd64", "linux/arm64"]) } else { image }
    })
}

/// Runs it and expects exit code 0 and no warning.
async fn fine(client: &Client, app: &App, arguments: &[&str]) -> Outcome {
    let outcome = client.run(app, arguments).await;
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.text());
    for complaint in ["Traceback", "APIVersionWarning", "CancelledError"] {
        assert!(!outcome.text().contains(complaint), "{arguments:?}: {}", outcome.text());
    }
    outcome
}

async fn a_day_with(version: &str) {
    let Some(registry) = RealRegistry::open().await else { return };
    let Some(client) = Client::find(version).await else { return };
    registry.push_all(thirty()).await;
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry(&registry).await;

    let outcome = fine(&client, &app, &["admin", "image", "rescan", "-r", registry.host()]).await;
    assert!(outcome.text().contains("Finished registry scanning."), "{}", outcome.text());
    let images = admin.images().await;
    assert_eq!(images.len(), 36, "30 images, six of them for two platforms");

    // A repeat is over almost before the client begins to listen, which is where its spinner breaks.
    for _ in 0..5 {
        let outcome = fine(&client, &app, &["admin", "image", "rescan"]).await;
        assert!(outcome.text().contains("Finished registry scanning."), "{}", outcome.text());
    }

    let list = fine(&client, &app, &["--output=json", "admin", "image", "list"]).await;
    let list: Value = serde_json::from_str(&list.stdout).unwrap_or_else(|e| panic!("{e}: {}", list.text()));
    let listed = list["items"].as_array().unwrap_or_else(|| panic!("{list}"));
    assert_eq!(listed.len(), 36);
    for image in &images {
        assert!(listed.iter().any(|item| item["digest"] == image["digest"]), "{image} is not in {list}");
    }

    let target = format!("{}/stable/lang1:3.6-ubuntu22.04", registry.host());
    let outcome = fine(&client, &app, &["admin", "image", "alias", "py", &target]).await;
    assert!(outcome.text().contains("An alias has created: py"), "{}", outcome.text());
    let image = admin.image("stable/lang1", "3.6-ubuntu22.04", "x86_64").await;
    assert_eq!(image["aliases"], serde_json::json!(["py"]));
    let outcome = fine(&client, &app, &["admin", "image", "list"]).await;
    assert!(outcome.stdout.contains("py"), "{}", outcome.text());

    let outcome = fine(&client, &app, &["admin", "image", "alias", "py", &target]).await;
    assert!(outcome.text().contains("Aliasing has failed"), "the name is taken: {}", outcome.text());
    let outcome = fine(&client, &app, &["admin", "image", "dealias", "py"]).await;
    assert!(outcome.text().contains("The alias has been removed: py"), "{}", outcome.text());
    let image = admin.image("stable/lang1", "3.6-ubuntu22.04", "x86_64").await;
    assert_eq!(image["aliases"], serde_json::json!([]));
    let outcome = fine(&client, &app, &["admin", "image", "dealias", "py"]).await;
    assert!(outcome.text().contains("Dealiasing has failed"), "{}", outcome.text());

    let outcome = client.run(&app, &["admin", "image", "rescan", "-r", "no-such.invalid"]).await;
    assert_eq!(outcome.code, 1, "{}", outcome.text());
    assert!(outcome.text().contains("no-such.invalid"), "{}", outcome.text());
}

#[tokio::test]
async fn a_day_with_client_22_3_2() {
    a_day_with("22.3.2").await;
}

#[tokio::test]
async fn a_day_with_client_26_9_6() {
    a_day_with("26.9.6").await;
}
