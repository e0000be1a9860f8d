//! `wharf demo` as a visitor uses it: one command, and nothing left afterwards.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::Launch;
use crate::support::process::{Process, read};
use crate::support::sign::Keypair;
use crate::support::wait::{PATIENCE, until};

/// Returns the word after another, as in `NAME=VALUE` or `name  value`.
fn after<'a>(text: &'a str, name: &str) -> &'a str {
    let rest = text.split(name).nth(1).unwrap_or_else(|| panic!("no {name:?} in {text}"));
    rest.split_whitespace().next().expect("a word behind it")
}

/// A demo that keeps its files below the launch's directory, and its output.
struct Demo {
    process: Process,
    launch: Launch,
}

impl Demo {
    fn start(launch: Launch, command: &mut Command) -> Self {
        command.env("TMPDIR", launch.root());
        let (stdout, stderr) = (launch.root().join("demo.out"), launch.root().join("demo.err"));
        let process = Process::spawn(command, &stdout, &stderr).expect("it runs");
        Self { process, launch }
    }

    fn said(&self) -> String {
        read(&self.launch.root().join("demo.out"))
    }

    fn complaints(&self) -> String {
        read(&self.launch.root().join("demo.err"))
    }

    async fn invitation(&self) -> String {
        let is_set = async || Some(self.said()).filter(|said| said.contains("Ctrl-C ends it"));
        until("the demo to be set", PATIENCE, is_set).await
    }

    /// Ends the demo, after which nothing may be left.
    async fn end(&mut self) {
        let status = self.process.exit("the demo", PATIENCE).await;
        assert!(status.success(), "{status}: {}", self.complaints());
        assert_eq!(left(self.launch.root()), Vec::<String>::new());
        assert!(!self.complaints().contains("panicked"), "{}", self.complaints());
    }
}

/// Returns what demos have left in a directory.
fn left(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("wharf-demo")).collect()
}

#[tokio::test]
async fn one_command_shows_a_lab_at_work_and_leaves_nothing() {
    let launch = Launch::plain();
    let mut command = launch.wharf(&["demo", "--listen", "127.0.0.1:0", "--log-level", "warn"]);
    let mut demo = Demo::start(launch, &mut command);
    let said = demo.invitation().await;
    let admin = Keypair::new(after(&said, "WHARF_ACCESS_KEY="), after(&said, "WHARF_SECRET_KEY="));
    let admin = Api::new(after(&said, "wharf is at work: "), Some(admin));

    // What is asked first of a registry is answered, so that looking over the demo finds nothing wrong with it.
    let (ok, why) = admin.mutate("test_container_registry", "hostname: \"cr.lab.example\"").await;
    assert!(ok, "{why}");

    // The catalog has images of both architectures, and the scan reports what was wrong with the rest.
    let images = admin.images().await;
    assert!(images.len() > 50, "{} images", images.len());
    let tasks = async || {
        let query = "{ background_tasks { kind state ledger { skipped_count failed_count } } }";
        let answer = admin.ask(query, json!({})).await;
        answer["background_tasks"].as_array().expect("a list").clone()
    };
    let first = tasks().await;
    let scan = first.iter().find(|task| task["kind"] == "rescan").expect("a scan");
    assert_eq!(scan["ledger"], json!({"skipped_count": 1, "failed_count": 2}), "{scan}");

    // As soon as the server takes requests, images are being loaded, and all nodes have an old build of one image.
    until("a task that runs", PATIENCE, async || {
        tasks().await.iter().any(|task| task["state"] == "started").then_some(())
    })
    .await;
    let stale = "cr.lab.example/community/jupyter:7.2-py312-ubuntu22.04";
    let query = "query($r: String!) { image_presence(reference: $r) { architecture state } }";
    let rows = admin.ask(query, json!({"r": stale})).await;
    let rows = rows["image_presence"].as_array().expect("a list");
    let behind: Vec<_> = rows.iter().filter(|row| row["state"] == "stale").collect();
    assert!(!behind.is_empty(), "{rows:?}");
    let is_own = |row: &&Value| row["architecture"] == std::env::consts::ARCH;
    assert!(
        behind.iter().all(is_own),
        "a node is behind with images for its own architecture only: {behind:?}"
    );

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

    // Another user sees what their domain may see, and no agents.
    let users = admin.ask("{ users { email role domain_name } }", json!({})).await;
    assert_eq!(users["users"].as_array().map(Vec::len), Some(5), "{users}");
    let explained = admin
        .ask(
            "query($r: String!) { explain_image_access(reference: $r, user: \"user@biology.example\") { visible } }",
            json!({"r": canonical}),
        )
        .await;
    assert_eq!(explained["explain_image_access"], json!({"visible": true}), "{explained}");

    // One agent goes away while it has work to do; the work waits until it comes back.
    let standing = async || {
        let query = "{ agent(agent_id: \"i-gpu04\") { status } background_tasks { state message } }";
        let answer = admin.ask(query, json!({})).await;
        let is_waiting = |task: &Value| {
            task["message"]
                .as_str()
                .is_some_and(|message| message.starts_with("i-gpu04: waiting for the agent"))
        };
        let tasks = answer["background_tasks"].as_array().expect("a list");
        (answer["agent"]["status"] == "LOST", tasks.iter().any(is_waiting))
    };
    // It goes away every two minutes.
    until("the flaky agent to be waited for", PATIENCE * 3, async || {
        (standing().await == (true, true)).then_some(())
    })
    .await;
    until("it to be back", PATIENCE, async || (standing().await == (false, false)).then_some(())).await;

    demo.process.signal("INT");
    demo.end().await;
    assert!(demo.said().ends_with("The demo is over, and nothing of it is left.\n"), "{}", demo.said());
}

#[tokio::test]
async fn a_demo_on_a_terminal_opens_a_browser_finds_a_port_and_is_gone_with_the_terminal() {
    let launch = Launch::plain();
    // The usual port is taken, by this or by another program.
    let taken = TcpListener::bind("127.0.0.1:8090");
    // What a killed demo left an hour ago.
    let dead = launch.root().join("wharf-demo-4711");
    fs::create_dir_all(dead.join("nodes/gpu01/blobs")).unwrap();
    fs::File::open(&dead).unwrap().set_modified(SystemTime::now() - Duration::from_hours(1)).unwrap();
    let programs = launch.root().join("bin");
    fs::create_dir(&programs).unwrap();
    let opener = programs.join("xdg-open");
    // A browser that stays in the foreground, as some do.
    fs::write(&opener, "#!/bin/sh\necho \"$1\" > \"$HOME/opened\"\nexec sleep 1\n").unwrap();
    fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();

    let mut command = launch.on_terminal("demo");
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{}:{path}", programs.display())).env("DISPLAY", ":77");
    let note = launch.root().join("opened");
    let mut demo = Demo::start(launch, &mut command);
    let said = demo.invitation().await;
    assert!(said.contains("127.0.0.1:8090 is in use"), "{said}");
    let url = after(&said, "wharf is at work: ");
    assert_ne!(url, "http://127.0.0.1:8090");
    let page = async || Some(read(&note)).filter(|page| page.ends_with('\n'));
    let page = until("the browser", PATIENCE, page).await;
    assert_eq!(page.trim(), format!("{url}/presence"));
    assert!(!dead.exists());

    // `script` dies and its terminal with it, so the demo gets a hangup and has no terminal to write to.
    let root = demo.launch.root().to_owned();
    assert_eq!(left(&root).len(), 1);
    demo.process.kill9();
    until("the demo to be gone", PATIENCE, async || left(&root).is_empty().then_some(())).await;
    assert!(!demo.complaints().contains("panicked"), "{}", demo.complaints());
    drop(taken);
}

#[tokio::test]
async fn an_address_that_was_asked_for_is_used_or_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let launch = Launch::plain();
    let mut command = launch.wharf(&["demo", "--listen", &address]);
    let mut demo = Demo::start(launch, &mut command);
    let status = demo.process.exit("the demo", PATIENCE).await;
    assert_eq!(status.code(), Some(1), "{}", demo.said());
    assert!(demo.complaints().contains(&address), "{}", demo.complaints());
    assert_eq!(left(demo.launch.root()), Vec::<String>::new());
}
