//! Removing images by their ids: from the catalog alone, or also from a registry that can delete a single tag.

use std::sync::Arc;

use serde_json::json;

use crate::api_tokens::create;
use crate::support::api::Api;
use crate::support::app::App;
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::rude::Rude;
use crate::support::wait::{PATIENCE, until};

const FORGET: &str = "mutation($image_id:String!){forget_image_by_id(image_id:$image_id){ok msg image{tag}}}";
const UNTAG: &str =
    "mutation($image_id:String!){untag_image_from_registry(image_id:$image_id){ok msg image{tag}}}";
const PURGE: &str = "mutation($image_id:String!,$options:PurgeImageOptions){
    purge_image_by_id(image_id:$image_id,options:$options){
      image{name registry architecture tag digest size_bytes aliases}}}";

struct Scene {
    app: App,
    registry: Arc<RealRegistry>,
    proxy: CountingProxy,
}

impl Scene {
    async fn set(images: &[Image]) -> Option<Self> {
        let registry = Arc::new(RealRegistry::open().await?);
        for image in images {
            registry.push(image).await;
        }
        let proxy = CountingProxy::start(&registry.url()).await;
        let app = App::start().await;
        app.admin().add_registry_at(&proxy.host(), &proxy.url(), None).await;
        app.admin().scan(&proxy.host()).await;
        Some(Self { app, registry, proxy })
    }

    /// Makes the registry delete tags, as the OCI specification allows.
    fn takes_tags_away(&self) {
        let registry = Arc::clone(&self.registry);
        self.proxy.answer(move |request| {
            let (repository, tag) = request.path().strip_prefix("/v2/")?.split_once("/manifests/")?;
            if request.method != "DELETE" {
                return None;
            }
            registry.delete_tag(repository, tag);
            Some(Response::new(202).into())
        });
    }

    async fn id(&self, tag: &str) -> String {
        let document = "query($r: String!) { image(reference: $r) { id } }";
        let reference = format!("{}/lab/python:{tag}", self.proxy.host());
        let data = self.app.admin().ask(document, json!({"r": reference})).await;
        data["image"]["id"].as_str().expect("an id").to_owned()
    }

    async fn tags(&self) -> (Vec<String>, Vec<String>) {
        let images = self.app.admin().images().await;
        let mut here: Vec<_> = images.iter().map(|image| image["tag"].as_str().unwrap().to_owned()).collect();
        let mut there = self.registry.tags("lab/python").await;
        here.sort();
        there.sort();
        (here, there)
    }

    fn deletions(&self) -> usize {
        self.proxy.log().iter().filter(|exchange| exchange.method == "DELETE").count()
    }
}

async fn say(api: &Api, document: &str, id: &str) -> (bool, String) {
    let data = api.ask(document, json!({"image_id": id})).await;
    let answer = data.as_object().unwrap().values().next().unwrap();
    (answer["ok"].as_bool().unwrap(), answer["msg"].as_str().unwrap().to_owned())
}

fn lab(tag: &str) -> Image {
    Image::new("lab/python", tag).content(tag)
}

#[tokio::test]
async fn forgetting_by_id_leaves_the_registry_alone() {
    let Some(scene) = Scene::set(&[lab("1"), lab("2")]).await else { return };
    let admin = scene.app.admin();
    let data = admin.ask("{ image_nodes { edges { node { id row_id tag } } } }", json!({})).await;
    let nodes = &data["image_nodes"]["edges"];
    assert_eq!(say(&admin, FORGET, nodes[0]["node"]["id"].as_str().unwrap()).await, (true, "done".into()));
    assert!(!say(&admin, FORGET, nodes[0]["node"]["row_id"].as_str().unwrap()).await.0);
    let purged = admin.ask(PURGE, json!({"image_id": nodes[1]["node"]["row_id"]})).await;
    assert_eq!(purged["purge_image_by_id"]["image"]["tag"], "2", "{purged}");
    assert_eq!(scene.tags().await, (vec![], vec!["1".into(), "2".into()]));
    assert_eq!(scene.deletions(), 0);
}

#[tokio::test]
async fn a_registry_that_takes_no_tag_away_loses_nothing() {
    let Some(scene) = Scene::set(&[lab("1"), lab("2")]).await else { return };
    let admin = scene.app.admin();
    let id = scene.id("1").await;
    let (ok, why) = say(&admin, UNTAG, &id).await;
    assert!(
        !ok && why.contains("takes no single tag away") && why.contains("forget the image in the catalog"),
        "{why}"
    );
    let why = admin.refused(PURGE, json!({"image_id": id, "options": {"remove_from_registry": true}})).await;
    assert!(why.contains("takes no single tag away"), "{why}");
    let both = vec!["1".to_owned(), "2".to_owned()];
    assert_eq!(scene.tags().await, (both.clone(), both));
}

#[tokio::test]
async fn a_tag_is_taken_away_and_the_others_of_its_manifest_stay() {
    let Some(scene) = Scene::set(&[lab("1")]).await else { return };
    let admin = scene.app.admin();
    let built = lab("1").build();
    scene.registry.tag(&built, &["same", "again"]).await;
    admin.scan(&scene.proxy.host()).await;
    scene.takes_tags_away();
    assert_eq!(say(&admin, UNTAG, &scene.id("same").await).await, (true, "done".into()));
    // The catalog forgets the image with the next scan, or when it is told to.
    assert_eq!(
        scene.tags().await,
        (vec!["1".into(), "again".into(), "same".into()], vec!["1".into(), "again".into()])
    );
    let again = scene.id("again").await;
    admin.ask(PURGE, json!({"image_id": again, "options": {"remove_from_registry": true}})).await;
    assert_eq!(scene.tags().await, (vec!["1".into(), "same".into()], vec!["1".into()]));
}

#[tokio::test]
async fn whoever_hangs_up_while_a_tag_is_taken_away_leaves_nothing_half_done() {
    let Some(scene) = Scene::set(&[lab("1"), lab("2"), lab("3")]).await else { return };
    let admin = scene.app.admin();
    let token = create(&admin, "ci", "full").await["token"].as_str().expect("a token").to_owned();
    scene.takes_tags_away();
    // The catalog forgets a purged image at once; an image whose tag is deleted stays until the next scan.
    for (tag, document, action, here, there) in [
        ("1", PURGE, "purge_image_by_id", vec!["2", "3"], vec!["2", "3"]),
        ("2", UNTAG, "untag_image_from_registry", vec!["2", "3"], vec!["3"]),
    ] {
        let id = scene.id(tag).await;
        let mut variables = json!({"image_id": id});
        if document == PURGE {
            variables["options"] = json!({"remove_from_registry": true});
        }
        scene.proxy.hold_those(|request| request.method == "DELETE");
        let client = Rude::ask(&scene.app, &token, document, &variables).await;
        until("the registry to be asked", PATIENCE, async || {
            (!scene.proxy.take_held().is_empty()).then_some(())
        })
        .await;
        client.break_off_and_be_heard(&scene.app).await;
        scene.proxy.release();

        let rows = until("the deed to be in the audit log", PATIENCE, async || {
            let mut rows = admin.audit_rows(0).await;
            rows.retain(|row| row["action"] == action);
            (!rows.is_empty()).then_some(rows)
        })
        .await;
        assert_eq!(rows.len(), 1, "{rows:#?}");
        assert_eq!((&rows[0]["target"], &rows[0]["outcome"]), (&json!(id), &json!("DONE")), "{rows:#?}");
        let owned = |tags: Vec<&str>| tags.into_iter().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(scene.tags().await, (owned(here), owned(there)), "{action}");
    }
    assert_eq!(scene.deletions(), 2);
}

#[tokio::test]
async fn nothing_is_taken_away_that_the_catalog_does_not_mean() {
    let both = ["linux/amd64", "linux/arm64"];
    let Some(scene) = Scene::set(&[lab("1"), lab("multi").platforms(&both).oci()]).await else { return };
    let admin = scene.app.admin();
    scene.takes_tags_away();
    let (ok, why) = say(&admin, UNTAG, &scene.id("multi").await).await;
    assert!(!ok && why.contains("is also aarch64 in the registry"), "{why}");
    let id = scene.id("1").await;
    scene.registry.push(&lab("1").content("moved")).await;
    let (ok, why) = say(&admin, UNTAG, &id).await;
    assert!(!ok && why.contains("is another image in the registry by now; rescan it"), "{why}");
    scene.registry.delete_tag("lab/python", "1");
    let (ok, why) = say(&admin, UNTAG, &id).await;
    assert!(!ok && why.contains("is not in the registry any more"), "{why}");
    assert_eq!(scene.deletions(), 0);
}

#[tokio::test]
async fn only_super_admins_take_images_out() {
    let Some(scene) = Scene::set(&[lab("1")]).await else { return };
    let api = scene.app.person("ann@test.invalid", "admin", "default").await.api;
    let id = scene.id("1").await;
    scene.app.admin().allow_registries("default", &[&scene.proxy.host()]).await;
    for (document, field) in [(FORGET, "forget_image_by_id"), (UNTAG, "untag_image_from_registry")] {
        let denied = (false, format!("no permission to execute {field}"));
        assert_eq!(say(&api, document, &id).await, denied);
    }
    let denied = api.refused(PURGE, json!({"image_id": id})).await;
    assert_eq!(denied, "no permission to execute purge_image_by_id");
    assert_eq!(scene.tags().await, (vec!["1".into()], vec!["1".into()]));
}
