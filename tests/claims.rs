//! A registry that names another registry's content: naming a digest costs nothing, and gains nothing.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::http1::{Answer, Request, Response};
use crate::support::image::{Built, Image, Manifest};
use crate::support::registry::{PASSWORD, USER};
use crate::support::shelf::Shelf;
use crate::support::verbs::counts;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The media type under which a registry serves a manifest as something that is no image.
const LEGACY: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// The image whose labels only the team may see.
fn secret() -> Image {
    Image::new("team/model", "1").oci().label("secret", "planted-plan-of-the-team")
}

/// A server with a team's registry and a registry of others, and a reader of each.
struct Scene {
    app: App,
    team: Shelf,
    others: Shelf,
    outsider: Api,
    built: Built,
}

impl Scene {
    async fn set() -> Self {
        let app = App::start().await;
        let admin = app.admin();
        let (team, others) = (Shelf::start([secret()]).await, Shelf::start([Image::new("r/x", "1")]).await);
        for shelf in [&team, &others] {
            admin.add_registry_at(&shelf.host(), &shelf.url(), Some((USER, PASSWORD))).await;
        }
        admin.does("create_domain", "name: \"outside\", props: {}").await;
        admin.allow_registries("outside", &[&others.host()]).await;
        let outsider = app.person("out@lab.example", "user", "outside").await.api;
        Self { app, team, others, outsider, built: secret().build() }
    }

    async fn scan(&self, registry: &Shelf) -> Value {
        self.app.admin().scan(&registry.host()).await
    }

    /// Makes the tag of the others' image this manifest; everything else is served as before.
    fn claim(&self, media_type: &str, manifest: &Manifest) {
        let answer = Response::new(200)
            .header("content-type", media_type)
            .header("docker-content-digest", &manifest.digest)
            .body(manifest.bytes.clone());
        self.others.turn(move |request: &Request| {
            (request.path() == "/v2/r/x/manifests/1").then(|| Answer::from(answer.clone()))
        });
    }

    /// Checks that users without access to the team's registry learn nothing about it.
    async fn assert_kept(&self, claim: &str) {
        let seen = json!(self.outsider.images().await).to_string();
        assert!(!seen.contains("planted-plan"), "{claim}: {seen}");
        let everything = self.app.admin().images().await;
        let shown = everything.iter().filter(|image| image["labels"].to_string().contains("planted-plan"));
        let places: Vec<&Value> = shown.map(|image| &image["registry"]).collect();
        assert_eq!(places, [&json!(self.team.host())], "{claim}");
    }
}

fn descriptor(media_type: &str, digest: &str, size: usize) -> Value {
    json!({"mediaType": media_type, "digest": digest, "size": size})
}

#[tokio::test]
async fn content_is_a_registrys_own_once_that_registry_has_served_it() {
    let scene = Scene::set().await;
    scene.scan(&scene.team).await;
    scene.scan(&scene.others).await;
    let (part, config) = (scene.built.part("x86_64"), scene.built.blobs.last().unwrap());
    let its_config = Manifest::new(
        MANIFEST,
        &json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
                "config": descriptor(CONFIG, &part.config, config.len())}),
    );
    let mut entry = descriptor(MANIFEST, &part.manifest, scene.built.manifests[0].bytes.len());
    entry["platform"] = json!({"os": "linux", "architecture": "amd64"});
    let its_manifest =
        Manifest::new(INDEX, &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}));
    for (claim, media_type, manifest) in
        [("the config", MANIFEST, &its_config), ("the manifest", INDEX, &its_manifest)]
    {
        scene.claim(media_type, manifest);
        // More than once: content that could not be fetched the first time must not count as fetched the next time.
        for _ in 0..2 {
            let task = scene.scan(&scene.others).await;
            assert_eq!(counts(&task)[5], 1, "{claim}: {task:#}");
            scene.assert_kept(claim).await;
        }
        let one = scene.app.admin().scan_image(&format!("{}/r/x:1", scene.others.host())).await;
        scene.app.admin().finish(&one).await;
        scene.assert_kept(claim).await;
    }
    // A registry that serves the image has it, and may show it. Which repository is read first is chance, so it is
    // read twice.
    scene.others.put(&secret());
    scene.scan(&scene.others).await;
    let task = scene.scan(&scene.others).await;
    assert_eq!(counts(&task)[5], 0, "{task:#}");
    let seen = json!(scene.outsider.images().await).to_string();
    assert!(seen.contains("planted-plan"), "{seen}");
}

#[tokio::test]
async fn what_one_registry_makes_of_a_manifest_is_no_verdict_on_another_ones() {
    let scene = Scene::set().await;
    // The others have obtained the team's manifest, and serve it as a type that no image has. They lack its config.
    scene.claim(LEGACY, &scene.built.manifests[0]);
    let task = scene.scan(&scene.others).await;
    assert_eq!(counts(&task)[5], 1, "{task:#}");
    let task = scene.scan(&scene.team).await;
    assert_eq!(counts(&task), [1, 0, 0, 0, 0, 0], "{task:#}");
    for shelf in [&scene.others, &scene.team] {
        let task = scene.scan(shelf).await;
        assert_eq!(counts(&task)[0..4], [0, 0, u64::from(shelf.host() == scene.team.host()), 0], "{task:#}");
    }
    scene.assert_kept("the verdict").await;
}
