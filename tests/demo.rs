//! `wharf demo`, as a visitor has it: one command, and nothing left afterwards.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::Launch;
use crate::support::process::{Process, read};
use crate::support::sign::Keypair;
use crate::support::wait::{PATIENCE, until};

/// The word behind another, as in `NAME=VALUE` or `name  value`.
fn after<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = text.split(name).nth(1).unwrap_or_else(|| panic!("no {name:?} in {text}"));
    rest.split_whitespace().next().expect("a word behind it")
}

#[tokio::test]
async fn one_command_shows_a_lab_at_work_and_leaves_nothing() {
    let launch = Launch::plain();
    let (stdout, stderr) = (launch.root().join("demo.out"), launch.root().join("demo.err"));
    let mut command = launch.wharf(&["demo", "--listen", "127.0.0.1:0", "--log-level", "warn"]);
    command.env("TMPDIR", launch.root());
    let mut demo = Process::spawn(&mut command, &stdout, &stderr).expect("the binary runs");
    let said = until("the demo to be set", PATIENCE, async || {
        let said = read(&stdout);
        said.contains("Ctrl-C ends it").then_some(said)
    })
    .await;
    let admin = Keypair::new(after(&said, "WHARF_ACCESS_KEY="), after(&said, "WHARF_SECRET_KEY="));
    let admin = Api::new(after(&said, "wharf is at work: "), Some(admin));

    // The catalog has images of both architectures, and the scan says what was wrong with the rest.
    let images = admin.images().await;
    assert!(images.len() > 50, "{} images", images.len());
    let scans =
        admin.ask("{ background_tasks { ledger { added skipped_count failed_count } } }", json!({})).await;
    let ledger = &scans["background_tasks"][0]["ledger"];
    assert_eq!((&ledger["skipped_count"], &ledger["failed_count"]), (&json!(1), &json!(2)), "{ledger}");

    // An image goes to real directories, byte by byte, and is there.
    let image = images.iter().find(|image| image["name"] == "stable/nodejs").expect("a small image");
    let canonical = format!(
        "{}/{}:{}",
        image["registry"].as_str().unwrap(),
        image["name"].as_str().unwrap(),
        image["tag"].as_str().unwrap()
    );
    let (end, task) = admin.transfer_to_end("preload_image", &canonical, "@cpu").await;
    assert!(end.ends_with("done"), "{task:#}");
    let present = admin.presence(&canonical).await.into_iter().filter(|state| state == "present").count();
    assert_eq!(present, 2);

    // Somebody else sees what their domain may see, and no agent.
    let users = admin.ask("{ users { email role domain_name } }", json!({})).await;
    assert_eq!(users["users"].as_array().map(Vec::len), Some(5), "{users}");
    let explained = admin
        .ask(
            "query($r: String!) { explain_image_access(reference: $r, user: \"user@biology.example\") { visible } }",
            json!({"r": canonical}),
        )
        .await;
    assert_eq!(explained["explain_image_access"], json!({"visible": true}), "{explained}");

    demo.signal("INT");
    let status = demo.exit("the demo", PATIENCE).await;
    assert!(status.success(), "{status}: {}", read(&stderr));
    let left: Vec<Value> = std::fs::read_dir(launch.root())
        .unwrap()
        .map(|entry| json!(entry.unwrap().file_name().to_string_lossy()))
        .filter(|name| name.as_str().is_some_and(|name| name.starts_with("wharf-demo")))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!read(&stderr).contains("panicked"), "{}", read(&stderr));
}
