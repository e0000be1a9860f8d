//! The shell commands as a person and as a script use them: the real binary with the real server and registry.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::support::api::Api;
use crate::support::app::{ADMIN_EMAIL, App, Launch};
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::process::{Outcome, Process, read, run, run_fed};
use crate::support::proxy::CountingProxy;
use crate::support::registry::{PASSWORD, RealRegistry, USER};
use crate::support::sign::Keypair;
use crate::support::wait::{PATIENCE, until};

/// Runs a command that must succeed, and returns what it printed.
async fn said(app: &App, arguments: &[&str]) -> String {
    let outcome = app.wharf(arguments).await;
    assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.text());
    outcome.stdout
}

/// Runs a command with `--json` that must succeed, and returns what it printed.
async fn told(app: &App, arguments: &[&str]) -> Value {
    let text = said(app, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e}\n{text}"))
}

/// Checks a refusal: its exit code, nothing on stdout, one line on stderr with these words in it.
fn refused(outcome: &Outcome, code: i32, words: &[&str]) {
    assert_eq!(outcome.code, code, "{}", outcome.text());
    assert_eq!(outcome.stdout, "", "{}", outcome.text());
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.text());
    assert!(outcome.stderr.starts_with("wharf: "), "{}", outcome.text());
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is missing: {}", outcome.text());
    }
}

#[tokio::test]
async fn a_first_user_gets_from_an_empty_server_to_a_named_image() {
    let Some(registry) = RealRegistry::open().await else { return };
    let host = registry.host();
    registry.push(&Image::new("stable/python", "3.9-ubuntu20.04").label("extra", "yes")).await;
    registry.push(&Image::new("stable/pytorch", "2.1").platforms(&["linux/amd64", "linux/arm64"])).await;
    registry.push(&Image::helm("charts/web", "1")).await;
    let app = App::start().await;

    refused(&app.wharf(&["image", "rescan"]).await, 1, &["wharf registry add"]);
    let added = said(&app, &["registry", "add", host]).await;
    assert!(added.contains(&format!("wharf image rescan {host}")), "{added}");
    assert!(said(&app, &["registry", "test", host]).await.contains("3 repositories"));
    let registries = told(&app, &["registry", "list"]).await;
    assert_eq!(registries[0]["hostname"], host, "{registries}");
    assert_eq!(registries[0]["config"]["url"], registry.url(), "{registries}");

    let rescan = app.wharf(&["image", "rescan", host]).await;
    assert_eq!(rescan.code, 0, "{}", rescan.text());
    assert!(rescan.stdout.contains("added 3, updated 0, unchanged 0, removed 0, skipped 1, failed 0"));
    let skipped = format!("skipped:\n  {host}/charts/web:1: ");
    assert!(rescan.stdout.contains(&skipped), "it says what and why: {}", rescan.text());
    for line in rescan.stderr.lines() {
        let (progress, _) = line.split_once(' ').unwrap_or((line, ""));
        let is_progress = progress
            .split_once('/')
            .is_some_and(|(n, of)| n.parse::<u32>().is_ok_and(|n| of.parse::<u32>().is_ok_and(|of| n <= of)));
        assert!(is_progress, "progress is a plain line each: {line:?}");
    }

    let python = format!("{host}/stable/python:3.9-ubuntu20.04");
    let list = said(&app, &["image", "list"]).await;
    assert_eq!(list.lines().count(), 4, "{list}");
    assert!(list.lines().any(|line| line.starts_with(&python) && line.contains("Python 3.9")), "{list}");
    let images = told(&app, &["image", "list", "--name", "PYTORCH"]).await;
    let architectures: Vec<_> =
        images.as_array().unwrap().iter().map(|i| i["architecture"].clone()).collect();
    assert_eq!(architectures, ["aarch64", "x86_64"], "{images}");

    said(&app, &["image", "alias", "py", &python]).await;
    let clash = app.wharf(&["image", "alias", "py", &format!("{host}/stable/pytorch:2.1")]).await;
    refused(&clash, 1, &["py is an alias of", "dealias it first"]);
    let shown = said(&app, &["image", "show", "py"]).await;
    assert!(shown.starts_with(&format!("image         {python}\n")), "{shown}");
    assert!(shown.contains("extra=yes"), "{shown}");
    let shown = told(&app, &["image", "show", "py"]).await;
    assert_eq!(shown["aliases"][0], "py", "{shown}");
    assert!(shown["size_bytes"].as_u64().is_some_and(|size| size > 0), "{shown}");
    said(&app, &["image", "dealias", "py"]).await;
    refused(&app.wharf(&["image", "show", "py"]).await, 1, &["no such image", "wharf image list"]);

    let tasks = told(&app, &["task", "list"]).await;
    let id = tasks[0]["id"].as_str().unwrap();
    assert!(said(&app, &["task", "list"]).await.contains(id));
    let page = said(&app, &["task", "show", id]).await;
    let item = page.lines().find(|line| line.starts_with(&format!("{host}/stable/python ")));
    assert!(item.is_some_and(|line| line.contains(" done ") && line.contains("1/1")), "{page}");
    let task = told(&app, &["task", "follow", id]).await;
    assert_eq!((&task["state"], &task["ledger"]["added"]), (&"done".into(), &3.into()), "{task}");

    said(&app, &["image", "forget", &python]).await;
    said(&app, &["registry", "remove", host]).await;
    assert_eq!(told(&app, &["image", "list"]).await, Value::Array(Vec::new()));
}

#[tokio::test]
async fn refusals_are_one_line_and_tell_wrong_usage_from_failure() {
    let app = App::start().await;
    let (access, secret) = ("WHARF_ACCESS_KEY", "WHARF_SECRET_KEY");
    for (environment, code, words) in [
        (&[(access, ""), (secret, "")][..], 2, &[access, secret, "first start", "reset-password"][..]),
        (&[(secret, "")], 2, &["an access key but no secret key", secret]),
        (&[(secret, "wrong")], 1, &[app.url(), secret]),
        (&[(access, "AKNOBODY")], 1, &[app.url(), access]),
        // Nothing listens on port 1.
        (
            &[("WHARF_ENDPOINT", "http://127.0.0.1:1")],
            1,
            &["http://127.0.0.1:1", "wharf serve", "--endpoint"],
        ),
    ] {
        let mut command = app.command(&["image", "list"]);
        command.envs(environment.iter().copied());
        refused(&run(&mut command, app.launch().root(), PATIENCE).await, code, words);
    }

    let nobody = "6b1f27e4-0c0d-4d0e-9f35-6d5f77686172";
    for (arguments, code, words) in [
        (&["image", "show", "nothing"][..], 1, &["nothing", "wharf image list"][..]),
        (&["image", "forget", "nothing"], 1, &["nothing", "wharf image list"]),
        (&["image", "alias", "a", "nothing"], 1, &["nothing"]),
        (&["image", "dealias", "nothing"], 1, &["nothing"]),
        (&["image", "rescan", "cr.invalid"], 1, &["cr.invalid"]),
        (&["image", "scan", "not a reference"], 1, &["not a reference"]),
        (&["registry", "test", "cr.invalid"], 1, &["cr.invalid"]),
        (&["registry", "change", "cr.invalid", "--url", "http://x"], 1, &["cr.invalid"]),
        (&["registry", "remove", "cr.invalid"], 1, &["cr.invalid"]),
        (&["registry", "add", "cr.invalid", "--url", "ftp://x"], 1, &["cr.invalid", "https://"]),
        (&["registry", "add", "ftp://cr.invalid"], 2, &["HOST", "wharf registry add --help"]),
        (&["task", "show", nobody], 1, &[nobody, "wharf task list"]),
        (&["task", "follow", nobody], 1, &[nobody, "wharf task list"]),
        (&["task", "cancel", nobody], 1, &[nobody]),
        (&["task", "show", "12"], 2, &["UUID"]),
        (&["image", "rescan", "--no-such-flag"], 2, &["wharf image rescan --help"]),
    ] {
        refused(&app.wharf(arguments).await, code, words);
    }
}

/// A server, and a registry behind a proxy that holds requests.
struct Held {
    app: App,
    proxy: CountingProxy,
    _registry: RealRegistry,
}

/// A running `wharf` command.
struct Following {
    process: Process,
    folder: tempfile::TempDir,
}

impl Held {
    async fn set(images: usize) -> Option<Self> {
        let registry = RealRegistry::open().await?;
        registry.stock((0..images).map(|n| Image::new(&format!("r/{}", n % 4), &n.to_string())));
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        said(&app, &["registry", "add", &proxy.host()]).await;
        Some(Self { app, proxy, _registry: registry })
    }

    /// Starts a rescan, and returns when some of it is done and the rest is held.
    async fn rescan_halfway(&self) -> Following {
        // Lets pass the catalog, the tag lists and more blobs than are fetched at once, so that some images are
        // complete; then nothing passes until it is released.
        let passed = AtomicUsize::new(0);
        let gate = self.proxy.gate();
        self.proxy.answer(move |request| {
            let is_blob = request.path().contains("/blobs/");
            if is_blob && passed.fetch_add(1, Ordering::SeqCst) == 30 {
                gate.send_replace(false);
            }
            None
        });
        let following = Following::start(&self.app, &["image", "rescan", &self.proxy.host()]);
        following.wait_for("progress", |stderr| stderr.lines().any(|line| !line.starts_with("0/"))).await;
        following
    }

    fn release(&self) {
        self.proxy.behave();
    }
}

impl Following {
    fn start(app: &App, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(app.launch().root()).unwrap();
        let (out, err) = (folder.path().join("out"), folder.path().join("err"));
        let process = Process::spawn(&mut app.command(arguments), &out, &err).unwrap();
        Self { process, folder }
    }

    fn stdout(&self) -> String {
        read(&self.folder.path().join("out"))
    }

    fn stderr(&self) -> String {
        read(&self.folder.path().join("err"))
    }

    async fn wait_for(&self, what: &str, is_there: impl Fn(&str) -> bool) {
        until(what, PATIENCE, async || is_there(&self.stderr()).then_some(())).await;
    }

    async fn end(mut self) -> Outcome {
        let status = self.process.exit("the command", PATIENCE).await;
        Outcome { code: status.code().unwrap_or(-1), stdout: self.stdout(), stderr: self.stderr() }
    }
}

#[tokio::test]
async fn a_follower_outlives_a_kill_of_the_server() {
    let Some(mut held) = Held::set(60).await else { return };
    let following = held.rescan_halfway().await;
    held.app.kill9();
    following.wait_for("word of the loss", |stderr| stderr.contains("waiting for the server")).await;
    held.app.restart().await;
    let goes_on =
        |stderr: &str| stderr.lines().last().is_some_and(|line| line.contains('/') && !line.contains("://"));
    following.wait_for("progress after the restart", goes_on).await;
    held.release();
    let outcome = following.end().await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert!(
        outcome.stdout.starts_with(&format!("rescan {} done\n", held.proxy.host())),
        "{}",
        outcome.text()
    );
    let tasks = told(&held.app, &["task", "list"]).await;
    assert_eq!(tasks.as_array().unwrap().len(), 1, "it was the same task: {tasks}");
    assert_eq!(told(&held.app, &["image", "list"]).await.as_array().unwrap().len(), 60);
}

#[tokio::test]
async fn ctrl_c_ends_the_following_and_not_the_task() {
    let Some(held) = Held::set(60).await else { return };
    let following = held.rescan_halfway().await;
    following.process.signal("INT");
    let outcome = following.end().await;
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{}", outcome.text());
    let tasks = told(&held.app, &["task", "list"]).await;
    assert_eq!(tasks[0]["state"], "started", "{tasks}");
    let id = tasks[0]["id"].as_str().unwrap();
    let way_back = format!("still running on the server; follow it again with: wharf task follow {id}\n");
    assert!(outcome.stderr.ends_with(&way_back), "{}", outcome.text());

    let again = Following::start(&held.app, &["task", "follow", id]);
    again.wait_for("progress", |stderr| !stderr.is_empty()).await;
    held.release();
    let outcome = again.end().await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert!(outcome.stdout.contains("added 60,"), "{}", outcome.text());
}

#[tokio::test]
async fn a_cancelled_task_is_a_failure_for_who_follows_it() {
    let Some(held) = Held::set(60).await else { return };
    let following = held.rescan_halfway().await;
    let tasks = told(&held.app, &["task", "list"]).await;
    let id = tasks[0]["id"].as_str().unwrap();
    said(&held.app, &["task", "cancel", id]).await;
    held.release();
    let outcome = following.end().await;
    assert_eq!(outcome.code, 1, "{}", outcome.text());
    assert!(outcome.stderr.contains("it was cancelled"), "{}", outcome.text());
}

#[tokio::test]
async fn a_registry_can_be_made_anonymous_again() {
    let Some(registry) = RealRegistry::with_password().await else { return };
    registry.push(&Image::new("private/python", "1")).await;
    let (host, app) = (registry.host(), App::start().await);
    let authority = app.launch().root().join("ca.pem");
    let pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    std::fs::write(&authority, pem).unwrap();

    let add = ["registry", "add", host, "--username", USER, "--password-stdin", "--project", "private"];
    let outcome =
        run_fed(&mut app.command(&add), &format!("{PASSWORD}\n"), app.launch().root(), PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    said(&app, &["image", "rescan", host]).await;
    said(&app, &["registry", "change", host, "--ca-file", authority.to_str().unwrap()]).await;
    let config = told(&app, &["registry", "list"]).await[0]["config"].take();
    assert_eq!((&config["username"], &config["ca_pem"]), (&USER.into(), &pem.into()), "{config}");
    assert_eq!(config["project"][0], "private", "what is not given stays: {config}");

    said(&app, &["registry", "change", host, "--anonymous", "--no-ca-file", "--project", ""]).await;
    let config = told(&app, &["registry", "list"]).await[0]["config"].take();
    assert_eq!((&config["username"], &config["ca_pem"]), (&Value::Null, &Value::Null), "{config}");
    assert_eq!(config["project"], Value::Array(Vec::new()), "{config}");
    let outcome = app.wharf(&["registry", "test", host]).await;
    refused(&outcome, 1, &[host]);
}

#[tokio::test]
async fn removals_that_were_held_back_come_with_the_command_that_does_them() {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.stock((0..12).map(|n| Image::new("r/a", &n.to_string())));
    let (host, app) = (registry.host(), App::start().await);
    said(&app, &["registry", "add", host]).await;
    said(&app, &["image", "rescan", host]).await;
    for tag in 1..12 {
        registry.delete_tag("r/a", &tag.to_string());
    }
    let held = said(&app, &["image", "rescan"]).await;
    let command = held.lines().find_map(|line| line.strip_prefix("to remove them: wharf "));
    let command = command.unwrap_or_else(|| panic!("no command: {held}"));
    assert_eq!(command, format!("image rescan {host} --confirm-removals"));
    let arguments: Vec<_> = command.split(' ').collect();
    let removed = said(&app, &arguments).await;
    assert!(removed.contains("removed 11,"), "{removed}");
}

#[tokio::test]
async fn lost_credentials_are_replaced_on_the_stopped_data_directory() {
    let launch = Launch::plain();
    let mut app = launch.clone().start().await;
    let place = launch.data_dir().display().to_string();
    let reset = async |arguments: &[&str], input: &str| {
        let arguments = [&["user", "reset-password"], arguments].concat();
        run_fed(&mut launch.wharf(&arguments), input, launch.root(), PATIENCE).await
    };

    let running = reset(&[ADMIN_EMAIL, "--data-dir", &place, "--show"], "").await;
    refused(&running, 1, &[&place, "another wharf is running", "stop it"]);
    app.terminate().await;

    let nowhere = launch.root().join("nowhere");
    let missing = reset(&[ADMIN_EMAIL, "--data-dir", nowhere.to_str().unwrap(), "--show"], "").await;
    refused(&missing, 1, &["nowhere", "--data-dir"]);
    assert!(!nowhere.exists());
    let unknown = reset(&["ann@test.invalid", "--data-dir", &place, "--show"], "").await;
    refused(&unknown, 1, &["ann@test.invalid", ADMIN_EMAIL]);
    let hidden = reset(&[ADMIN_EMAIL, "--data-dir", &place, "--keypair"], "").await;
    refused(&hidden, 2, &["nothing was changed", "--show", "--password-stdin"]);
    let short = reset(&[ADMIN_EMAIL, "--data-dir", &place, "--password-stdin"], "short\n").await;
    refused(&short, 1, &["password"]);
    app.restart().await;
    said(&app, &["image", "list"]).await;
    app.terminate().await;

    let given = reset(&[ADMIN_EMAIL, "--data-dir", &place, "--password-stdin"], "a password of mine\n").await;
    assert_eq!((given.code, given.stdout.lines().count()), (0, 1), "{}", given.text());
    assert!(!given.text().contains("a password of mine"), "{}", given.text());
    let shown = reset(&[ADMIN_EMAIL, "--data-dir", &place, "--keypair", "--show"], "").await;
    assert_eq!(shown.code, 0, "{}", shown.text());
    let keys = exported(&shown.stdout);
    app.restart().await;
    let outcome = app.wharf(&["image", "list"]).await;
    assert_eq!(outcome.code, 1, "the old keys are no good: {}", outcome.text());
    let api = Api::new(app.url(), Some(Keypair::new(&keys[0].1, &keys[1].1)));
    assert_eq!(api.ask("{ images { name } }", Value::Null).await["images"], Value::Array(Vec::new()));
}

/// Returns the variables of the `export` line.
fn exported(text: &str) -> Vec<(String, String)> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix("export "));
    let line = line.unwrap_or_else(|| panic!("no export line: {text}"));
    let pair = |word: &str| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    line.split(' ').filter_map(pair).collect()
}

#[tokio::test]
async fn a_first_start_on_a_terminal_shows_the_one_line_that_sets_up_a_shell() {
    let launch = Launch::plain();
    let mut command = launch.on_terminal("serve --listen 127.0.0.1:0");
    let (out, err) = (launch.root().join("out"), launch.root().join("err"));
    let mut process = Process::spawn(&mut command, &out, &err).unwrap();
    until("the announcement", PATIENCE, async || read(&out).contains("listening on ").then_some(())).await;
    let keys = exported(&read(&out));
    let names: Vec<_> = keys.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["WHARF_ENDPOINT", "WHARF_ACCESS_KEY", "WHARF_SECRET_KEY"]);
    let outcome = run(launch.wharf(&["registry", "list"]).envs(keys), launch.root(), PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert!(read(&out).contains("e-mail      admin@localhost"), "{}", read(&out));
    process.terminate();
    process.exit("script", PATIENCE).await;
}

#[tokio::test]
async fn a_first_start_elsewhere_shows_no_secret_and_says_how_to_get_one() {
    let launch = Launch::new(|command| {
        command.env_remove("WHARF_ADMIN_ACCESS_KEY").env_remove("WHARF_ADMIN_SECRET_KEY");
    });
    let app = launch.start().await;
    assert!(!app.logs().contains("export "), "{}", app.logs());
    assert!(
        app.logs().contains(&format!("wharf user reset-password {ADMIN_EMAIL} --keypair")),
        "{}",
        app.logs()
    );
    assert!(!App::start().await.logs().contains("reset-password"), "keys that were given are known");
}

/// Text with control sequences: colours, a window title, a cleared screen, reversed letters, a forged line.
const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;x\u{7}\u{9b}31m\u{202e}gpj.exe\r\nwharf: all is well";

#[tokio::test]
async fn nothing_from_a_registry_reaches_the_terminal_raw() {
    let Some(registry) = RealRegistry::open().await else { return };
    let long = "n/".repeat(100) + "n";
    registry.push(&Image::new("evil/labels", "1").label("hostile", HOSTILE).label(HOSTILE, "1")).await;
    registry.push(&Image::new("evil/large", "1").label("large", &"x".repeat(1 << 20))).await;
    registry.push(&Image::new(&long, &"t".repeat(128))).await;
    registry.push(&Image::new("evil/refused", "1")).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    proxy.answer(|request| {
        let errors =
            serde_json::json!({"errors": [{"code": HOSTILE, "message": HOSTILE, "detail": HOSTILE}]});
        request.path().contains("/evil/refused/manifests").then(|| Response::json(403, &errors).into())
    });
    let (host, app) = (proxy.host(), App::start().await);
    said(&app, &["registry", "add", &host]).await;
    let rescan = app.wharf(&["image", "rescan", &host]).await;
    assert!(rescan.stdout.contains("evil/refused"), "{}", rescan.text());
    let mut outputs = vec![rescan.stdout, rescan.stderr];
    let tasks = told(&app, &["task", "list"]).await;
    let (id, labels) = (tasks[0]["id"].as_str().unwrap(), format!("{host}/evil/labels:1"));
    for arguments in [
        &["image", "list"][..],
        &["image", "show", &labels],
        &["image", "show", &format!("{host}/evil/large:1")],
        &["task", "list"],
        &["task", "show", id],
    ] {
        outputs.push(said(&app, arguments).await);
        outputs.push(said(&app, &[arguments, &["--json"]].concat()).await);
    }
    let shown = told(&app, &["image", "show", &labels]).await;
    let values: Vec<_> = shown["labels"].as_array().unwrap().iter().map(|label| &label["value"]).collect();
    assert!(values.contains(&&Value::from(HOSTILE)), "JSON has it whole: {shown}");
    for text in outputs {
        let raw = text.chars().find(|&c| (c.is_control() && c != '\n') || c == '\u{202e}');
        assert_eq!(raw, None, "{text}");
        assert!(!text.lines().any(|line| line.starts_with("wharf: all is well")), "{text}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let Some(registry) = RealRegistry::open().await else { return };
    // More than fits into a pipe, so that the writer meets the closed end.
    registry.stock((0..300).map(|n| Image::new("r/a", &n.to_string()).label("k", &"v".repeat(500))));
    let app = App::start().await;
    said(&app, &["registry", "add", registry.host()]).await;
    said(&app, &["image", "rescan"]).await;
    for arguments in [&["image", "list", "--json"][..], &["schema"], &["completion", "bash"], &["--help"]] {
        let wharf = app.command(arguments);
        let mut command = Command::new("sh");
        // The pipe's reading end is closed before anything is written to it.
        command.args(["-c", "{ \"$0\" \"$@\"; echo \"exit $?\" >&2; } | exec <&-"]).arg(wharf.get_program());
        command
            .args(wharf.get_args())
            .envs(wharf.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let outcome = run(&mut command, app.launch().root(), PATIENCE).await;
        assert_eq!(outcome.stderr, "exit 0\n", "{arguments:?}");
    }
}
