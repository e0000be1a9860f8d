//! `wharf doctor` on installations that are healthy, stopped, tampered with, and half gone.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, ADMIN_SECRET_KEY, App, Launch};
use crate::support::image::Image;
use crate::support::process::{Outcome, run};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::wait::{PATIENCE, until};

/// The findings of a run.
struct Findings {
    code: i32,
    stderr: String,
    rows: Vec<Value>,
}

impl Findings {
    fn of(outcome: &Outcome) -> Self {
        let rows: Value =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|_| panic!("{}", outcome.text()));
        Self {
            code: outcome.code,
            stderr: outcome.stderr.clone(),
            rows: rows.as_array().expect("a list").clone(),
        }
    }

    /// Returns the row of this check, which must exist once.
    fn row(&self, check: &str) -> &Value {
        let rows: Vec<_> = self.rows.iter().filter(|row| row["check"] == check).collect();
        assert_eq!(rows.len(), 1, "{check}: {:#?}", self.rows);
        rows[0]
    }

    fn is(&self, check: &str, result: &str, words: &[&str]) {
        let row = self.row(check);
        let said =
            format!("{} {}", row["found"].as_str().unwrap(), row["remedy"].as_str().unwrap_or_default());
        assert_eq!(row["result"], result, "{row:#}");
        assert_eq!(row["remedy"].is_string(), result != "ok", "a remedy for what is wrong: {row:#}");
        for word in words {
            assert!(said.contains(word), "{word:?} is missing: {row:#}");
        }
    }

    /// Returns the failed checks, in order.
    fn failed(&self) -> Vec<&str> {
        let failed = self.rows.iter().filter(|row| row["result"] == "fail");
        failed.filter_map(|row| row["check"].as_str()).collect()
    }

    /// Checks that these checks fail and no others, and that the exit code and stderr say so.
    fn fails(&self, checks: &[&str]) {
        assert_eq!(self.failed(), checks, "{:#?}", self.rows);
        if checks.is_empty() {
            assert_eq!((self.code, self.stderr.as_str()), (0, ""));
        } else {
            let said = format!("wharf: doctor: {} of {} checks failed\n", checks.len(), self.rows.len());
            assert_eq!((self.code, self.stderr.as_str()), (1, said.as_str()));
        }
    }
}

/// Runs it on a data directory without a running server.
async fn examined(launch: &Launch, directory: &Path) -> Findings {
    let mut command = launch.wharf(&["doctor", "--json", "--data-dir", directory.to_str().unwrap()]);
    // Nothing listens on this port.
    command.env("WHARF_ENDPOINT", "http://127.0.0.1:1");
    Findings::of(&run(&mut command, launch.root(), PATIENCE).await)
}

/// Runs it for a running server, as its admin.
async fn beside(app: &App) -> Findings {
    Findings::of(&app.wharf(&["doctor", "--json", "--data-dir", app.data_dir().to_str().unwrap()]).await)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_directory_that_can_only_be_read_is_read_to_its_end() {
    let mut app = App::start().await;
    app.terminate().await;
    let (launch, directory) = (app.launch().clone(), app.data_dir());
    let of = |command: &Command| -> Vec<String> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(|word| word.to_str().unwrap().to_owned()).collect()
    };
    let mut doctor = launch.wharf(&["doctor", "--json", "--data-dir", directory.to_str().unwrap()]);
    doctor.env("WHARF_ENDPOINT", "http://127.0.0.1:1");
    // A mount that ends with the process.
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,ro,bind \"$0\" || exit 99; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(&directory).args(of(&doctor));
    command.envs(doctor.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome = run(&mut command, launch.root(), PATIENCE).await;
    if outcome.code == 99 || outcome.stderr.contains("unshare") {
        eprintln!("left out: no file system can be mounted here");
        return;
    }
    let found = Findings::of(&outcome);
    found.fails(&[]);
    found.is("database", "ok", &["all of them whole"]);
    // The findings are the same as on the directory that can be written.
    assert_eq!(found.failed(), examined(&launch, &directory).await.failed());
}

#[tokio::test]
async fn a_stopped_servers_directory_is_looked_over_and_left_as_it_is() {
    let mut app = App::start().await;
    app.terminate().await;
    let (launch, directory) = (app.launch().clone(), app.data_dir());
    let key = directory.join("secret.key");
    let before = fs::read(directory.join("wharf.redb")).unwrap();

    let found = examined(&launch, &directory).await;
    found.fails(&[]);
    for check in ["data directory", "key file", "database", "key", "clock", "disk"] {
        found.is(check, "ok", &[]);
    }
    found.is("database", "ok", &["records, all of them whole, schema 1"]);
    found.is("super-admins", "ok", &["1 active", ADMIN_EMAIL]);
    found.is("server", "warn", &["not running", "wharf serve --data-dir"]);

    set_mode(&key, 0o644);
    set_mode(&directory, 0o755);
    let found = examined(&launch, &directory).await;
    found.fails(&["data directory", "key file"]);
    found.is("data directory", "fail", &["mode 0755", "chmod 700 "]);
    found.is("key file", "fail", &["mode 0644", "chmod 600 "]);
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(&key)), (0o755, 0o644), "looking mends nothing");
    set_mode(&key, 0o600);
    set_mode(&directory, 0o700);

    let bytes = fs::read(&key).unwrap();
    fs::write(&key, [7; 32]).unwrap();
    let found = examined(&launch, &directory).await;
    found.fails(&["key"]);
    found.is("key", "fail", &["not the key this database was written with", "from your backup"]);
    fs::remove_file(&key).unwrap();
    let found = examined(&launch, &directory).await;
    found.fails(&["key file"]);
    found.is("key file", "fail", &["No such file or directory", "restore it from your backup"]);
    assert!(!key.exists(), "no key is made");
    fs::write(&key, bytes).unwrap();
    set_mode(&key, 0o600);
    assert!(fs::read(directory.join("wharf.redb")).unwrap() == before, "the database was changed");

    fs::write(directory.join("wharf.redb"), &before[..before.len() / 2]).unwrap();
    let found = examined(&launch, &directory).await;
    found.fails(&["database"]);
    found.is("database", "fail", &["not a usable wharf database", "wharf restore"]);
    fs::write(directory.join("wharf.redb"), &before).unwrap();
    app.restart().await;
    beside(&app).await.fails(&[]);
}

#[tokio::test]
async fn a_killed_servers_directory_is_looked_over_too() {
    let mut app = App::start().await;
    app.kill9();
    let found = examined(app.launch(), &app.data_dir()).await;
    found.fails(&[]);
    found.is("database", "ok", &[]);
}

#[tokio::test]
async fn what_is_not_there_is_told() {
    let launch = Launch::plain();
    let found = examined(&launch, &launch.data_dir()).await;
    found.fails(&["data directory", "server"]);
    found.is("data directory", "fail", &["has no wharf.redb", "--data-dir"]);
    found.is("server", "fail", &["http://127.0.0.1:1: ", "wharf serve"]);
    assert!(!launch.data_dir().exists(), "nothing is made");
    fs::write(launch.root().join("file"), "x").unwrap();
    let found = examined(&launch, &launch.root().join("file")).await;
    found.fails(&["data directory"]);
    found.is("data directory", "fail", &["is no directory"]);
}

#[tokio::test]
async fn without_credentials_the_rest_is_looked_at() {
    let app = App::start().await;
    let directory = app.data_dir();
    let bare = |arguments: &[&str], keys: &[(&str, &str)]| {
        let mut command: Command = app.launch().wharf(&[&["doctor"], arguments].concat());
        command.env("WHARF_ENDPOINT", app.url()).env("WHARF_DATA_DIR", &directory).envs(keys.iter().copied());
        command
    };
    let root = app.launch().root();
    let found = Findings::of(&run(&mut bare(&["--json"], &[]), root, PATIENCE).await);
    found.fails(&[]);
    found.is("database", "ok", &["in use by a server"]);
    found.is("server", "ok", &[concat!("wharf ", env!("CARGO_PKG_VERSION")), app.url()]);
    for check in ["connection", "server clock", "readiness"] {
        found.is(check, "ok", &[]);
    }
    found.is("credentials", "warn", &["registries, agents", "WHARF_ACCESS_KEY", "reset-password"]);
    assert!(!found.rows.iter().any(|row| row["check"] == "agents"), "{:#?}", found.rows);

    let wrong = [("WHARF_ACCESS_KEY", ADMIN_ACCESS_KEY), ("WHARF_SECRET_KEY", "wrong")];
    let found = Findings::of(&run(&mut bare(&["--json"], &wrong), root, PATIENCE).await);
    found.fails(&["credentials"]);
    let ann = app.person("ann@lab.example", "user", "default").await;
    let hers = [("WHARF_ACCESS_KEY", ann.access_key.as_str()), ("WHARF_SECRET_KEY", ann.secret_key.as_str())];
    let found = Findings::of(&run(&mut bare(&["--json"], &hers), root, PATIENCE).await);
    found.fails(&[]);
    found.is("credentials", "warn", &["ann@lab.example is no super-admin"]);

    // This server runs, but is not reached at that address.
    let mut elsewhere = bare(&["--json", "--endpoint", "http://127.0.0.1:1"], &[]);
    let found = Findings::of(&run(&mut elsewhere, root, PATIENCE).await);
    found.fails(&["server"]);
    found.is("server", "fail", &["one runs on ", "--endpoint"]);

    for (arguments, keys) in
        [(vec!["--nonsense"], vec![]), (vec![], vec![("WHARF_SECRET_KEY", ADMIN_SECRET_KEY)])]
    {
        let outcome = run(&mut bare(&arguments, &keys), root, PATIENCE).await;
        assert_eq!((outcome.code, outcome.stdout.as_str()), (2, ""), "{}", outcome.text());
    }
}

#[tokio::test]
async fn registries_and_engines_that_do_not_answer_are_named() {
    let registry = Shelf::start([Image::new("r/a", "1")]).await;
    let nodes = tempfile::tempdir().unwrap();
    let (here, away) = (nodes.path().join("here"), nodes.path().join("away"));
    let is_away = Arc::new(AtomicBool::new(false));
    let (flag, engines) =
        (Arc::clone(&is_away), [here.clone(), away.clone()].map(|node| format!("oci:{}", node.display())));
    let mut app = App::start_with(move |command| {
        command.args(["--engine", &engines[0], "--engine"]);
        // Nothing ever listens there.
        command.arg(if flag.load(Ordering::SeqCst) {
            "unix:///nowhere/wharf-test.sock"
        } else {
            &engines[1]
        });
    })
    .await;
    let alive = async |app: &App, count: usize| {
        until("agents", PATIENCE, async || {
            let agents = app.admin().ask("{ agents(status: \"ALIVE\") { id } }", Value::Null).await;
            (agents["agents"].as_array().map(Vec::len) == Some(count)).then_some(())
        })
        .await;
    };
    alive(&app, 2).await;
    app.admin().add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
    let found = beside(&app).await;
    found.fails(&[]);
    found.is("agents", "ok", &["2 of 2 answer"]);
    found.is(&format!("registry {}", registry.host()), "ok", &["lists 1 repositories"]);
    found.is("server database", "ok", &[" kB"]);
    found.is("server disk", "ok", &["free"]);
    let text = app.wharf(&["doctor", "--data-dir", app.data_dir().to_str().unwrap()]).await;
    assert_eq!(text.code, 0, "{}", text.text());
    assert!(text.stdout.starts_with("RESULT  CHECK"), "{}", text.text());
    assert_eq!(text.stdout.lines().count(), found.rows.len() + 1, "a line each: {}", text.text());

    is_away.store(true, Ordering::SeqCst);
    app.restart().await;
    app.admin().add_registry_at("127.0.0.1:1", "http://127.0.0.1:1", None).await;
    alive(&app, 1).await;
    let unreached = "engine docker+unix:///nowhere/wharf-test.sock";
    // The agent appears once the server has tried to reach it.
    let found = until("the engine", PATIENCE, async || {
        let found = beside(&app).await;
        found.rows.iter().any(|row| row["check"] == unreached).then_some(found)
    })
    .await;
    found.fails(&["registry 127.0.0.1:1", "agent i-away", unreached]);
    found.is("registry 127.0.0.1:1", "fail", &["127.0.0.1:1", "wharf registry change"]);
    found.is("agent i-away", "fail", &["it is lost (oci:", "wharf agent remove i-away"]);
    found.is(unreached, "fail", &["has not answered since the server started", "--engine"]);
    found.is("agents", "ok", &["1 of 2 answer"]);
}
