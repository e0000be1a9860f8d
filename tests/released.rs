//! Data directories of released versions: this version continues with everything that any of them stored.
//!
//! For each released version, `tests/fixtures/released` has an archive, and beside it a description of its content by
//! that version. `WHARF_WRITE_FIXTURE=1 cargo nextest run -E 'test(released::)'` makes those of the version in
//! development.

mod full;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use jiff::Timestamp;
use serde_json::{Value, json};
use wharf::base::clock::Clock;
use wharf::catalog::records::REGISTRIES;
use wharf::store::Store;
use wharf::store::at_rest::AtRest;

use crate::support::api::Api;
use crate::support::app::{ADMIN_EMAIL, App, Launch};
use crate::support::machine::{Speaker, hello};
use crate::support::registry::{PASSWORD, USER};
use crate::support::sign::Keypair;
use crate::support::verbs::counts;
use crate::support::visitor::Visitor;
use crate::support::within::Within;

use full::{DIALS_IN, ENGINE, Full, HOST, KEY, answer, in_order, shelf};

/// Tables in the code that no server's database has: a backup's label, and tables that unit tests keep in their own
/// files.
const NEVER_THERE: &[&str] = &["BACKUP_TO_LABEL", "NAME_TO_LABEL", "NUMBER_TO_NOTE"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/released")
}

/// Returns the tables that the code names, except those of its unit tests.
fn tables_of_the_code() -> BTreeSet<String> {
    let mut tables = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Tables of tests are not the server's.
            if path.ends_with("tests.rs") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let named = code.split("Table::new(\"").skip(1).filter_map(|rest| rest.split('"').next());
            tables.extend(named.map(str::to_owned));
        }
    }
    tables.retain(|name| !NEVER_THERE.contains(&name.as_str()));
    assert!(tables.len() > 20, "{tables:?}");
    tables
}

/// Returns the number of records in each table of a stopped server, except empty tables.
fn tables_of(data_dir: &Path) -> Value {
    let mut tables = AtRest::open(data_dir).unwrap().check_records().unwrap();
    tables.retain(|_, records| *records > 0);
    json!(tables)
}

fn tar(arguments: &[&str]) {
    let status = Command::new("tar").args(arguments).status().expect("tar runs");
    assert!(status.success(), "tar {arguments:?}: {status}");
}

#[tokio::test]
async fn a_server_that_keeps_something_of_every_kind_has_a_record_in_every_table() {
    let mut full = Full::start().await;
    let mut described = full.end().await;
    let tables = tables_of(&full.root().join("data"));
    if std::env::var_os("WHARF_WRITE_FIXTURE").is_some() {
        described["tables"] = tables.clone();
        let place = folder().join(env!("CARGO_PKG_VERSION"));
        let archive = format!("{}.tar.gz", place.display());
        tar(&[
            "-C",
            full.root().to_str().unwrap(),
            "--owner=0",
            "--group=0",
            "-czf",
            &archive,
            "data",
            "one",
        ]);
        fs::write(format!("{}.json", place.display()), format!("{described:#}\n")).unwrap();
    }
    for table in tables_of_the_code() {
        assert!(!tables[&table].is_null(), "nothing of `Full` is kept in {table}; give it something that is");
    }
}

/// A copy of a released version's directory.
struct Released {
    launch: Launch,
    /// The description by that version.
    described: Value,
}

impl Released {
    fn all() -> Vec<Self> {
        let names =
            fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let versions: Vec<String> =
            names.filter_map(|name| Some(name.strip_suffix(".json")?.to_owned())).collect();
        assert!(versions.contains(&"0.1.0".to_owned()), "{versions:?}");
        versions.iter().map(|version| Self::unpack(version)).collect()
    }

    fn unpack(version: &str) -> Self {
        let launch = Launch::new(|serve| {
            serve.args(["--engine", ENGINE]);
        });
        let archive = folder().join(format!("{version}.tar.gz"));
        tar(&["-C", launch.root().to_str().unwrap(), "-xzf", archive.to_str().unwrap()]);
        let described = fs::read(folder().join(format!("{version}.json"))).unwrap();
        Self { launch, described: serde_json::from_slice(&described).unwrap() }
    }

    /// Returns a list from that version's description, by name.
    fn named<'a>(&'a self, list: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let list = self.described[list].as_object().expect("a list");
        list.iter().map(|(name, value)| (name.as_str(), value))
    }

    fn text(&self, name: &str) -> &str {
        self.described[name].as_str().expect("a text")
    }
}

#[tokio::test]
async fn a_directory_of_every_released_version_opens_with_everything_in_it() {
    for released in Released::all() {
        assert_eq!(tables_of(&released.launch.data_dir()), released.described["tables"]);
        let app = released.launch.clone().start().await;
        let api = app.admin();
        api.agents_alive(1).await;
        for (question, expected) in released.named("lasting") {
            assert_eq!(&answer(&api, question).await, expected, "{question}");
        }
        people_are_who_they_were(&app, &released).await;
        let (_link, id) = Speaker::join(&app, hello(None, KEY)).await.expect("in by its credential");
        assert_eq!(id, DIALS_IN);
    }
}

async fn people_are_who_they_were(app: &App, released: &Released) {
    for (email, keypair) in released.named("keypairs") {
        let [access, secret] = [0, 1].map(|part| keypair[part].as_str().unwrap());
        let api = Api::new(app.url(), Some(Keypair::new(access, secret)));
        assert_eq!(api.ask("{ user { email } }", json!({})).await["user"]["email"], email);
    }
    for (email, password) in released.named("passwords") {
        let reply = Visitor::of(app).sign_in(email, password.as_str().unwrap()).await;
        assert_eq!(reply.json()["authenticated"], true, "{email}: {}", reply.text());
    }
}

#[test]
fn passwords_of_registries_that_a_released_version_sealed_are_opened() {
    for released in Released::all() {
        let store = Store::open(&released.launch.data_dir()).unwrap();
        for (host, password) in released.named("registry_passwords") {
            let registry = store.read_now(|r| r.find(&REGISTRIES, host)).unwrap().unwrap();
            let opened = store.seal().open(&format!("registry/{host}/password"), &registry.password.unwrap());
            assert_eq!(opened.unwrap().expose(), password);
        }
    }
}

#[tokio::test]
async fn what_a_released_version_would_forget_some_day_is_there_until_that_day() {
    for released in Released::all() {
        let moment: Timestamp = released.text("moment").parse().unwrap();
        let engine = ENGINE.replacen(':', &format!(":{}/", released.launch.root().display()), 1);
        let server = Within::start(released.launch.data_dir(), &engine, Clock::new(move || moment)).await;
        let call = |path: &str, body: &Value| Api::new(&server.url, None).call("POST", path).json(body);
        // Signatures are dated by the real clock, so this server does not accept them.
        let token = format!("Bearer {}", released.text("token"));
        for (question, expected) in released.named("passing") {
            let asked = call("/graphql", &json!({"query": question})).header("Authorization", &token);
            assert_eq!(&in_order(asked.send().await.json()["data"].take()), expected, "{question}");
        }
        let who = call("/graphql", &json!({"query": "{ user { email } }"}));
        let who = who.header("Cookie", released.text("cookie")).send().await;
        assert_eq!(who.json()["data"]["user"]["email"], ADMIN_EMAIL, "a session goes on");
        let tried = call("/server/login", &json!({"username": released.text("tried"), "password": "x"}));
        assert_eq!(tried.send().await.status, 429, "who has tried that often waits");
        server.stop().await;
    }
}

#[tokio::test]
async fn what_a_released_version_has_read_of_a_registry_is_not_fetched_again() {
    for released in Released::all() {
        let registry = shelf().await;
        let app = released.launch.clone().start().await;
        let query = "mutation($h: String!, $p: ModifyContainerRegistryInput!) {
            modify_container_registry(hostname: $h, props: $p) { container_registry { hostname } } }";
        let props = json!({"url": registry.url(), "username": USER, "password": PASSWORD});
        app.admin().ask(query, json!({"h": HOST, "p": props})).await;
        registry.take_log();
        let first = app.admin().scan(HOST).await;
        assert_eq!(counts(&first), [0, 0, 5, 0, 1, 0], "{first:#}");
        let asked = |what: &str| {
            let log = registry.take_log();
            let asked = log.iter().filter(|request| request.path().contains(what));
            asked.map(|request| request.path().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(asked("/blobs/"), [""; 0]);
        app.admin().scan(HOST).await;
        let repeated = asked("/manifests/");
        assert_eq!(repeated.len(), 5, "one for each tag: {repeated:?}");
    }
}
