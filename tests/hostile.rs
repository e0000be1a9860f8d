//! Registries that lie, stall, flood and refuse: the task ends and says why, the catalog keeps what it has, the
//! server stays small and healthy, other registries go on, and the password goes nowhere else.
//!
//! Cases that take longer than a test may (deadlines of 30 seconds and more with slow registries) are tested with the
//! client alone in `src/registry/tests`.

mod content;
mod listings;
mod pace;
mod plainer;
mod silence;
mod sizes;
mod tokens;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::http1::{Answer, Request, Response};
use crate::support::image::{Image, Manifest};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// The most memory that a server may need, whatever a registry does.
const MEMORY: u64 = 200 << 20;

/// The tag used by most cases.
const VICTIM: &str = "/v2/r/a/manifests/1";

type Hook = Box<dyn Fn(&Request) -> Option<Answer> + Send + Sync>;

/// What a case must result in, besides what all of them must.
enum Must {
    /// The catalog's rows stay as before, and the task has this text in its message or its ledger.
    Keep(&'static str),
    /// The registry is odd but correct: nothing fails, and every earlier row remains.
    Read,
}

/// One way to misbehave.
struct Case {
    name: &'static str,
    must: Must,
    hook: Hook,
}

/// Returns a case with a misbehaving registry: the rows stay, and the task says `why`.
fn bad(
    name: &'static str,
    why: &'static str,
    hook: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static,
) -> Case {
    Case { name, must: Must::Keep(why), hook: Box::new(hook) }
}

/// Returns a case with a registry that is odd but correct.
fn odd(name: &'static str, hook: impl Fn(&Request) -> Option<Answer> + Send + Sync + 'static) -> Case {
    Case { name, must: Must::Read, hook: Box::new(hook) }
}

/// Answers one path, and leaves the others unchanged.
fn at(path: &'static str, answer: impl Into<Answer>) -> impl Fn(&Request) -> Option<Answer> + Send + Sync {
    let answer = answer.into();
    move |request| (request.path() == path).then(|| answer.clone())
}

/// Answers these paths, and leaves the others unchanged.
fn each(answers: Vec<(String, Answer)>) -> impl Fn(&Request) -> Option<Answer> + Send + Sync {
    move |request| answers.iter().find(|(path, _)| request.path() == path).map(|(_, answer)| answer.clone())
}

fn raw(bytes: impl Into<Bytes>) -> Answer {
    Answer::Raw(bytes.into())
}

/// Returns a manifest as a good registry serves it.
fn served(media_type: &str, body: impl Into<Bytes>) -> Response {
    Response::new(200).header("content-type", media_type).body(body)
}

/// Returns `/v2/r/a/manifests/<digest>` and the manifest there.
fn child(manifest: &Manifest) -> (String, Answer) {
    let path = format!("/v2/r/a/manifests/{}", manifest.digest);
    (path, served(&manifest.media_type, manifest.bytes.clone()).into())
}

fn index_of(children: &[Value]) -> Manifest {
    Manifest::new(OCI_INDEX, &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}))
}

fn entry(digest: &str, architecture: &str) -> Value {
    let platform = json!({"os": "linux", "architecture": architecture});
    json!({"mediaType": OCI_MANIFEST, "digest": digest, "size": 500, "platform": platform})
}

/// The images of every registry before it misbehaves: more than the sweep lets vanish at once.
fn healthy() -> Vec<Image> {
    let mut images: Vec<Image> = ["r/a", "r/b", "r/c"]
        .iter()
        .flat_map(|name| (1..=4).map(|tag| Image::new(name, &tag.to_string())))
        .collect();
    images.push(Image::new("r/many", "1").platforms(&["linux/amd64", "linux/arm64"]));
    images
}

/// A server with a good registry.
struct Scene {
    app: App,
    good: Shelf,
}

impl Scene {
    async fn set() -> Self {
        let app = App::start_with(|command| {
            command.env("WHARF_LOG_LEVEL", "debug").env("RUST_BACKTRACE", "0");
        })
        .await;
        let good = Shelf::start(healthy()).await;
        app.admin().add_registry_at(&good.host(), &good.url(), Some((USER, PASSWORD))).await;
        app.admin().scan(&good.host()).await;
        Self { app, good }
    }

    /// Returns a registry that was scanned while it was healthy.
    async fn registry(&self) -> Shelf {
        let registry = Shelf::start(healthy()).await;
        let admin = self.app.admin();
        admin.add_registry_at(&registry.host(), &registry.url(), Some((USER, PASSWORD))).await;
        let task = admin.scan(&registry.host()).await;
        assert_eq!(counts(&task), [14, 0, 0, 0, 0, 0], "{task:#}");
        registry.take_log();
        registry
    }

    /// Returns the rows of one registry, in order.
    async fn rows(&self, registry: &Shelf) -> Vec<String> {
        let mut rows = self.app.admin().images().await;
        rows.retain(|row| row["registry"] == registry.host());
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort();
        rows
    }

    /// Runs all cases at once.
    async fn endure(&self, cases: Vec<Case>) {
        join_all(cases.into_iter().map(|case| self.endure_one(case))).await;
        self.is_well("all of them").await;
    }

    /// Runs the cases one after the other, for tests of memory.
    async fn endure_in_turn(&self, cases: Vec<Case>) {
        for case in cases {
            let name = case.name;
            self.endure_one(case).await;
            self.is_well(name).await;
        }
    }

    async fn endure_one(&self, case: Case) {
        let Case { name, must, hook } = case;
        let admin = self.app.admin();
        let registry = self.registry().await;
        let before = self.rows(&registry).await;
        registry.turn(hook);
        let task = admin.rescan(&registry.host()).await;
        let beside = self.good.host();
        let (good, last) = tokio::join!(admin.scan(&beside), admin.finish(&task));
        assert_eq!(counts(&good), [0, 0, 14, 0, 0, 0], "{name}: the other registry suffers: {good:#}");
        let ended = admin.task(&task).await;
        let after = self.rows(&registry).await;
        match must {
            Must::Keep(why) => {
                assert_eq!(after, before, "{name}: the catalog changed: {ended:#}");
                assert!(ended.to_string().contains(why), "{name}: it does not say {why:?}: {ended:#}");
            }
            Must::Read => {
                assert_eq!(ended["state"], "done", "{name}: {ended:#}");
                assert_eq!(counts(&ended)[5], 0, "{name}: {ended:#}");
                assert_eq!(counts(&ended)[3], 0, "{name}: {ended:#}");
                assert_eq!(after.len(), before.len(), "{name}: {ended:#}");
            }
        }
        for said in [ended.to_string(), format!("{last:?}"), after.join("\n")] {
            tells_nothing(name, &said);
        }
    }

    /// Checks that the server answers, stays small, and has leaked no secret.
    async fn is_well(&self, name: &str) {
        let ready = self.app.anonymous().call("GET", "/readyz").send().await;
        assert_eq!(ready.status, 200, "{name}: {}", ready.text());
        let memory = self.app.peak_memory();
        assert!(memory < MEMORY, "{name}: {} MiB at the peak", memory >> 20);
        let logs = self.app.logs();
        tells_nothing(name, &logs);
        assert!(!logs.contains("panicked"), "{name}: {logs}");
    }
}

fn tells_nothing(name: &str, said: &str) {
    for secret in [PASSWORD.to_owned(), STANDARD.encode(format!("{USER}:{PASSWORD}"))] {
        assert!(!said.contains(&secret), "{name}: the password is told: {said}");
    }
}
