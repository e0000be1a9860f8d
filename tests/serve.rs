//! `wharf serve` as an operator sees it: its directory, its refusals, its end, and its output.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::api::Api;
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_PASSWORD, ADMIN_SECRET_KEY, App, Launch};
use crate::support::image::Image;
use crate::support::process::{Process, read, run};
use crate::support::registry::{PASSWORD, RealRegistry, USER};
use crate::support::sign::Keypair;
use crate::support::wait::{PATIENCE, until};

/// The database, in the data directory.
const DATABASE: &str = "wharf.redb";
/// The key that secrets are encrypted with, beside it.
const KEY: &str = "secret.key";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).permissions().mode() & 0o777
}

#[tokio::test]
async fn the_data_directory_and_the_key_are_for_the_owner_only() {
    let app = App::start().await;
    assert_eq!(mode(&app.data_dir()), 0o700);
    assert_eq!(mode(&app.data_dir().join(KEY)), 0o600);
    assert!(app.data_dir().join(DATABASE).is_file());
}

#[tokio::test]
async fn a_key_that_others_can_get_at_is_refused_with_what_closes_it() {
    let launch = Launch::plain();
    let mut app = launch.clone().start().await;
    app.terminate().await;
    let key = launch.data_dir().join(KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = launch.refused().await;
    assert_eq!(refused.code, 1, "{}", refused.text());
    let remedy = format!("chmod 600 {}", key.display());
    assert!(refused.stderr.contains("mode 0644") && refused.stderr.contains(&remedy), "{}", refused.text());
    let (data_dir, file) = (launch.data_dir(), launch.root().join("backup"));
    let arguments = ["backup", file.to_str().unwrap(), "--offline", data_dir.to_str().unwrap()];
    let refused = run(&mut launch.wharf(&arguments), launch.root(), PATIENCE).await;
    assert!(refused.code == 1 && refused.stderr.contains(&remedy), "{}", refused.text());
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    launch.start().await;
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_is_refused() {
    let launch = Launch::plain();
    let app = launch.clone().start().await;
    let second = launch.refused().await;
    assert_eq!(second.code, 1, "{}", second.text());
    let place = launch.data_dir().display().to_string();
    assert!(second.stderr.contains(&place), "it names the directory: {}", second.text());
    assert!(!second.text().contains("panicked"), "{}", second.text());
    assert_eq!(app.anonymous().call("GET", "/healthz").send().await.status, 200, "the first one goes on");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let garbage: Vec<u8> =
        (0..40_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    for (name, bytes) in
        [("text", b"this is my diary\n".to_vec()), ("garbage", garbage), ("empty", Vec::new())]
    {
        let launch = Launch::plain();
        fs::create_dir(launch.data_dir()).unwrap();
        fs::set_permissions(launch.data_dir(), fs::Permissions::from_mode(0o700)).unwrap();
        let file = launch.data_dir().join(DATABASE);
        fs::write(&file, &bytes).unwrap();
        refused_untouched(&launch, name).await;
    }
}

#[tokio::test]
async fn a_truncated_database_is_refused_and_left_as_it_is() {
    for (name, keep) in [("half", 2), ("a tenth", 10), ("a few bytes", 10_000)] {
        let launch = Launch::plain();
        let mut app = launch.clone().start().await;
        app.terminate().await;
        let file = launch.data_dir().join(DATABASE);
        let whole = fs::metadata(&file).unwrap().len();
        fs::File::options().write(true).open(&file).unwrap().set_len(whole / keep).unwrap();
        refused_untouched(&launch, name).await;
    }
}

async fn refused_untouched(launch: &Launch, name: &str) {
    let file = launch.data_dir().join(DATABASE);
    let before = fs::read(&file).unwrap();
    let outcome = launch.refused().await;
    assert_eq!(outcome.code, 1, "{name}: {}", outcome.text());
    assert!(outcome.stderr.contains(DATABASE), "{name}: it names the file: {}", outcome.text());
    assert!(!outcome.text().contains("panicked"), "{name}: {}", outcome.text());
    assert!(fs::read(&file).unwrap() == before, "{name}: the file was written to");
}

#[tokio::test]
async fn a_server_that_is_asked_to_stop_does_so_at_once() {
    let mut app = App::start().await;
    let (status, took) = app.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", app.logs());
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let mut app = App::start().await;
    for n in 0..20 {
        let host = format!("registry-{n}.invalid");
        app.admin().add_registry_at(&host, &format!("http://{host}"), None).await;
        if n % 5 == 4 {
            app.kill9();
            app.restart().await;
        }
    }
    let data = app.admin().ask("{ container_registries { hostname config { url } } }", json!({})).await;
    assert_eq!(data["container_registries"].as_array().map(Vec::len), Some(20), "{data}");
}

#[tokio::test]
async fn registries_are_changed_and_deleted_by_their_host_name() {
    let app = App::start().await;
    let admin = app.admin();
    admin.add_registry_at("cr.invalid", "http://cr.invalid", Some(("ann", "planted-pw"))).await;
    let change = "mutation { modify_container_registry(hostname: \"cr.invalid\", props: {url: \"http://cr.invalid:5000\"})
        { container_registry { hostname config { url type username ssl_verify } } } }";
    let data = admin.ask(change, json!({})).await;
    let config = &data["modify_container_registry"]["container_registry"]["config"];
    assert_eq!(config["url"], "http://cr.invalid:5000", "{data}");
    assert_eq!(config["username"], "ann", "what is not given stays: {data}");
    let delete = "mutation { delete_container_registry(hostname: \"cr.invalid\") { container_registry { hostname } } }";
    admin.ask(delete, json!({})).await;
    let data = admin.ask("{ container_registries { hostname } }", json!({})).await;
    assert_eq!(data, json!({"container_registries": []}));
}

#[tokio::test]
async fn operators_can_see_how_it_is() {
    let app = App::start().await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        let reply = app.anonymous().call("GET", path).send().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let metrics = app.anonymous().call("GET", "/metrics").send().await.text();
    assert!(metrics.contains("# HELP ") && metrics.contains("# TYPE "), "{metrics}");
}

#[tokio::test]
async fn each_client_is_told_the_api_version_it_speaks() {
    let app = App::start().await;
    for (client, version) in [
        ("20.03.10", "v5.20191215"),
        ("21.09.5", "v6.20210815"),
        ("22.03.2", "v6.20220315"),
        ("23.09.10", "v7.20230615"),
        ("24.09.14", "v8.20240915"),
        ("25.19.2", "v9.20250722"),
        ("26.9.6", "v9.20250722"),
    ] {
        let agent = format!("Backend.AI Client for Python {client}");
        let api = app.anonymous().with_agent(&agent, version);
        let reply = api.call("GET", "/").header("Accept", "*/*").send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let body = reply.json();
        assert_eq!(body["version"], version, "{client}: {body}");
        assert!(body["manager"].is_string(), "{body}");
    }
    let body = app.anonymous().call("GET", "/").header("Accept", "*/*").send().await.json();
    assert!(body["version"].as_str().is_some_and(|v| v.starts_with('v')), "{body}");
}

#[tokio::test]
async fn clients_that_ask_for_announcements_get_one() {
    let app = App::start().await;
    let reply = app.admin().call("GET", "/manager/announcement").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert!(body["enabled"].is_boolean() && body["message"].is_string(), "{body}");
    let reply = app.admin().call("GET", "/manager/status").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json();
}

#[tokio::test]
async fn secrets_are_in_no_log_no_answer_and_no_file() {
    let Some(registry) = RealRegistry::with_password().await else { return };
    registry.push(&Image::new("private/python", "1")).await;
    let mut app = App::start_with(|command| {
        command.env("WHARF_LOG_LEVEL", "trace");
    })
    .await;
    let admin = app.admin();
    admin.add_registry(&registry).await;
    let good = admin.scan(registry.host()).await;

    // Failures print more than successes do.
    let wrong = "planted-wrong-password";
    let other = RealRegistry::with_password().await.expect("as the first one");
    admin.add_registry_at(other.host(), &other.url(), Some((USER, wrong))).await;
    let task = admin.rescan(other.host()).await;
    let last = admin.finish(&task).await;
    let bad = admin.task(&task).await;
    let listed =
        admin.ask("{ container_registries { hostname config { url username password } } }", json!({})).await;
    app.terminate().await;

    let basic = |password: &str| STANDARD.encode(format!("{USER}:{password}"));
    let secrets = [
        ADMIN_PASSWORD.to_owned(),
        ADMIN_SECRET_KEY.to_owned(),
        PASSWORD.to_owned(),
        wrong.to_owned(),
        basic(PASSWORD),
        basic(wrong),
    ];
    let said = format!("{}{good}{bad}{listed}{last:?}", app.logs());
    for secret in &secrets {
        assert!(!said.contains(secret.as_str()), "{secret} was said:\n{said}");
        for entry in fs::read_dir(app.data_dir()).unwrap() {
            let path = entry.unwrap().path();
            let bytes = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} stands in {}", path.display());
        }
    }
}

#[tokio::test]
async fn wrong_usage_is_told_from_failure() {
    let launch = Launch::plain();
    for arguments in
        [&["serve", "--no-such-flag"][..], &["no-such-command"], &["serve", "--listen", "nowhere"]]
    {
        let outcome = run(&mut launch.wharf(arguments), launch.root(), PATIENCE).await;
        assert_eq!(outcome.code, 2, "{arguments:?}: {}", outcome.text());
    }
    let help = run(&mut launch.wharf(&["serve", "--help"]), launch.root(), PATIENCE).await;
    assert_eq!(help.code, 0);
    for word in ["--data-dir", "--listen", "127.0.0.1:8090", "WHARF_DATA_DIR"] {
        assert!(help.stdout.contains(word), "{word} is not in the help:\n{}", help.stdout);
    }
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let app = App::start().await;
    let taken = app.url().trim_start_matches("http://").to_owned();
    let launch = Launch::plain();
    let data_dir = launch.data_dir();
    let mut command: Command =
        launch.wharf(&["serve", "--data-dir", data_dir.to_str().unwrap(), "--listen", &taken]);
    let outcome = run(&mut command, launch.root(), PATIENCE).await;
    assert_eq!(outcome.code, 1, "{}", outcome.text());
    assert!(outcome.stderr.contains(&taken), "{}", outcome.text());
}

#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nobody() {
    let launch = Launch::plain();
    let data_dir = launch.data_dir();
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--engine", "none", "--log-level", "debug", "--data-dir"];
    let mut command = launch.wharf(&arguments);
    command.arg(data_dir).env("WHARF_ADMIN_ACCESS_KEY", ADMIN_ACCESS_KEY);
    command.env("WHARF_ADMIN_SECRET_KEY", ADMIN_SECRET_KEY).env("WHARF_ADMIN_PASSWORD", ADMIN_PASSWORD);
    let stdout = launch.root().join("stdout.log");
    let mut server = Process::spawn(&mut command, &stdout, Path::new("/dev/full")).expect("the binary runs");
    let url = until("the server to listen", PATIENCE, async || {
        assert_eq!(server.ended(), None, "it ended");
        let said = read(&stdout);
        said.strip_prefix("listening on ")?.strip_suffix('\n').map(str::to_owned)
    })
    .await;
    let admin = Api::new(&url, Some(Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY)));
    // A registry that does not exist: its task is logged, and ends.
    admin.add_registry_at("127.0.0.1:1", "http://127.0.0.1:1", None).await;
    let end = admin.finish(&admin.rescan("127.0.0.1:1").await).await;
    assert!(end.name.ends_with("failed"), "{end:?}");
    server.terminate();
    assert!(server.exit("the server", PATIENCE).await.success());
}
