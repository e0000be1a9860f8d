//! Images: list, rescan, alias, forget, purge.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::clients::rows::{ARCH_IS_NOT_SENT, DOCUMENT_DOES_NOT_LEX, IMAGES};
use crate::clients::trial::Trial;
use crate::support::http1::Response;
use crate::support::image::Image;
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;

fn images() -> Vec<Image> {
    vec![
        Image::new("stable/python", "3.9-ubuntu20.04").platforms(&["linux/amd64", "linux/arm64"]),
        Image::new("stable/python", "3.10-ubuntu22.04"),
        Image::new("stable/tool", "1").label("ai.backend.features", "operation"),
        Image::new("other/r", "4.2"),
        Image::new("other/julia", "1.8"),
    ]
}

/// A registry, and a door before it that can learn to take single tags away, which Debian's can't.
struct Place {
    registry: Arc<RealRegistry>,
    door: CountingProxy,
}

impl Place {
    fn host(&self) -> String {
        self.door.host()
    }

    fn takes_tags_away(&self) {
        let registry = Arc::clone(&self.registry);
        self.door.answer(move |request| {
            let (repository, tag) = request.path().strip_prefix("/v2/")?.split_once("/manifests/")?;
            (request.method == "DELETE").then(|| {
                registry.delete_tag(repository, tag);
                Response::new(202).into()
            })
        });
    }
}

async fn day(mut trial: Trial) {
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push_all(images()).await;
    let door = CountingProxy::start(&registry.url()).await;
    let registry = Place { registry: Arc::new(registry), door };
    trial.admin.add_registry_at(&registry.host(), &registry.door.url(), None).await;
    rescans(&mut trial, &registry).await;
    lists(&mut trial).await;
    aliases(&mut trial, &registry).await;
    own_images(&mut trial, &registry).await;
    library(&mut trial, &registry).await;
    trial.finish();
}

async fn rescans(trial: &mut Trial, registry: &Place) {
    const ALL: &str = "admin image rescan";
    const ONE: &str = "admin image rescan -r REGISTRY";
    const PROJECT: &str = "admin image rescan -r REGISTRY -p PROJECT";
    let finished = ["Finished registry scanning."];

    let of_one = trial.say("admin rescan-images -r", "admin image rescan -r");
    let host = registry.host();
    let arguments = [of_one.as_slice(), &[host.as_str()]].concat();
    trial.works(ONE, &arguments, &finished).await;
    let count = trial.admin.images().await.len();
    trial.check(ONE, count == 6, &format!("{count} images instead of 6"));
    let unknown = trial.run(&[of_one.as_slice(), &["no-such.invalid"]].concat()).await;
    let is_told = unknown.code != 0 && unknown.text().contains("no-such.invalid");
    trial.check(ONE, is_told, &format!("an unknown registry: {}", unknown.text()));

    let with_project = [arguments.as_slice(), &["-p", "other"]].concat();
    if trial.year >= 25 {
        trial.works(PROJECT, &with_project, &finished).await;
    } else {
        trial.lacks(PROJECT, &with_project).await;
    }
    // A repeat is over almost before the client begins to listen, which is where its spinner breaks.
    let all = trial.say("admin rescan-images", "admin image rescan");
    trial.works(ALL, &all, &finished).await;
    trial.works(ALL, &all, &finished).await;
}

async fn lists(trial: &mut Trial) {
    const LIST: &str = "admin image list";
    const OPERATION: &str = "admin image list --operation";
    // An operation image is not for users, and the client asks for those only with an option.
    let mut known = trial.admin.images().await;
    known.retain(|image| image["name"] != "stable/tool");
    let list = trial.say("admin images", "admin image list");
    if trial.year == 20 {
        let printed = trial.works(LIST, &list, &["stable/python", "3.10-ubuntu22.04"]).await;
        // Its columns are in the order of the answer's fields, whatever they are.
        let first = known.iter().find(|image| image["name"] == "other/r").expect("other/r");
        let digest = first["digest"].as_str().unwrap_or_default();
        let line = printed.lines().find(|line| line.contains("other/r")).unwrap_or_default();
        let cells: Vec<&str> = line.split_whitespace().collect();
        trial.check(LIST, cells.first() == Some(&"other/r") && cells.get(3) == Some(&digest), line);
    } else {
        let arguments = [&["--output=json"], list.as_slice()].concat();
        let printed = trial.works(LIST, &arguments, &[]).await;
        let printed: Value = serde_json::from_str(&printed).unwrap_or_default();
        let items = printed["items"].as_array().cloned().unwrap_or_default();
        let all_there = known.iter().all(|image| items.iter().any(|item| item["digest"] == image["digest"]));
        trial.check(LIST, items.len() == known.len() && all_there, &format!("{printed}"));
        trial.works(LIST, &list, &["stable/python"]).await;
    }
    let arguments = [list.as_slice(), &["--operation"]].concat();
    let printed = trial.works(OPERATION, &arguments, &["stable/tool"]).await;
    trial.check(OPERATION, !printed.contains("stable/python"), &printed);
}

async fn aliases(trial: &mut Trial, registry: &Place) {
    const ALIAS: &str = "admin image alias ALIAS TARGET";
    const ARCH: &str = "admin image alias ALIAS TARGET --arch ARCH";
    const DEALIAS: &str = "admin image dealias ALIAS";
    let target = format!("{}/stable/python:3.9-ubuntu20.04", registry.host());
    let names = async |trial: &Trial| {
        trial.admin.image("stable/python", "3.9-ubuntu20.04", "x86_64").await["aliases"].clone()
    };
    let alias = trial.say("admin alias-image py", "admin image alias py");
    let arguments = [alias.as_slice(), &[&target]].concat();
    trial.works(ALIAS, &arguments, &["An alias has created: py"]).await;
    let given = names(trial).await;
    trial.check(ALIAS, given == json!(["py"]), &given.to_string());
    trial.works(ALIAS, &arguments, &["Aliasing has failed"]).await;

    let with_arch = trial.say("admin alias-image arm", "admin image alias arm");
    let with_arch = [with_arch.as_slice(), &[&target, "--arch", "aarch64"]].concat();
    if trial.year >= 22 {
        trial.cannot(ARCH, &with_arch, &ARCH_IS_NOT_SENT).await;
        let given = names(trial).await;
        trial.check(ARCH, given == json!(["arm", "py"]), &format!("the argument arrives after all: {given}"));
    } else {
        trial.lacks(ARCH, &with_arch).await;
    }
    let dealias = trial.say("admin dealias-image py", "admin image dealias py");
    trial.works(DEALIAS, &dealias, &["The alias has been removed: py"]).await;
    trial.works(DEALIAS, &dealias, &["Dealiasing has failed"]).await;
    let left = names(trial).await;
    trial.check(DEALIAS, !left.to_string().contains("py"), &left.to_string());
}

async fn own_images(trial: &mut Trial, registry: &Place) {
    const LIST: &str = "image list";
    const CUSTOMIZED: &str = "image list --customized";
    const FORGET: &str = "image forget ID";
    const BY_NAME: &str = "image forget CANONICAL --arch ARCH";
    const PURGE: &str = "image purge ID";
    const REMOVE: &str = "image purge ID --remove-from-registry";
    if trial.year < 24 {
        for row in [LIST, CUSTOMIZED, FORGET, BY_NAME, PURGE, REMOVE] {
            let arguments: Vec<&str> = row.split_whitespace().collect();
            trial.lacks(row, &arguments).await;
        }
        return;
    }
    trial.works(LIST, &["image", "list"], &["stable/python"]).await;
    trial.works(CUSTOMIZED, &["image", "list", "--customized"], &[]).await;

    let there = async |trial: &mut Trial, row, name: &str| {
        let images = trial.ask(row, "{ images { id name } }").await;
        let images = images["images"].as_array().cloned().unwrap_or_default();
        images
            .iter()
            .find(|image| image["name"] == name)
            .map(|image| image["id"].as_str().unwrap().to_owned())
    };
    if let Some(id) = there(trial, FORGET, "other/r").await {
        trial.works(FORGET, &["image", "forget", &id], &["Image forgotten"]).await;
    }
    let left = there(trial, FORGET, "other/r").await;
    trial.check(FORGET, left.is_none(), "it is still there");

    let canonical = format!("{}/stable/python:3.9-ubuntu20.04", registry.host());
    let arguments = ["image", "forget", &canonical, "--arch", "aarch64"];
    if trial.year == 24 {
        trial.cannot(BY_NAME, &arguments, &DOCUMENT_DOES_NOT_LEX).await;
    } else {
        trial.works(BY_NAME, &arguments, &["Image forgotten"]).await;
        let left = trial.ask(BY_NAME, "{ images { tag architecture } }").await;
        let left = left["images"].as_array().cloned().unwrap_or_default();
        let left: Vec<_> = left.iter().filter(|image| image["tag"] == "3.9-ubuntu20.04").collect();
        trial.check(
            BY_NAME,
            left.len() == 1 && left[0]["architecture"] == "x86_64",
            &format!("not the one that was named went: {left:?}"),
        );
    }
    if trial.year == 24 {
        trial.lacks(PURGE, &["image", "purge", "ID"]).await;
        trial.lacks(REMOVE, &["image", "purge", "ID", "--remove-from-registry"]).await;
        return;
    }
    if let Some(id) = there(trial, PURGE, "other/julia").await {
        trial.works(PURGE, &["image", "purge", &id], &["Image purged"]).await;
    }
    let left = there(trial, PURGE, "other/julia").await;
    trial.check(PURGE, left.is_none(), "it is still there");
    registry.takes_tags_away();
    if let Some(id) = there(trial, REMOVE, "stable/tool").await {
        trial.works(REMOVE, &["image", "purge", &id, "--remove-from-registry"], &["Image purged"]).await;
    }
    let tags = registry.registry.tags("stable/tool").await;
    trial.check(REMOVE, tags.is_empty(), &format!("the registry has {tags:?} still"));
}

async fn library(trial: &mut Trial, registry: &Place) {
    const GET: &str = "Image.get(REFERENCE, ARCH) in Python";
    const BY_ID: &str = "Image.get_by_id(ID) in Python";
    let script = |call: &str| {
        format!(
            "from ai.backend.client.session import Session\n\
             from ai.backend.client.output.fields import image_fields as fields\n\
             with Session() as session:\n    \
                 print(session.Image.{call}, fields=[fields['id'], fields['digest']]))\n"
        )
    };
    let image = trial.admin.image("stable/python", "3.10-ubuntu22.04", "x86_64").await;
    let digest = image["digest"].as_str().unwrap_or_default().to_owned();
    let id = trial.ask(BY_ID, "{ images { id digest } }").await;
    let id = id["images"].as_array().and_then(|all| all.iter().find(|one| one["digest"] == digest.as_str()));
    let id = id.map(|one| one["id"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
    let reference = format!("{}/stable/python:3.10-ubuntu22.04", registry.host());
    let by_reference = script(&format!("get('{reference}', 'x86_64'"));
    let by_id = script(&format!("get_by_id('{id}'"));
    match trial.year {
        0..24 => {
            trial.script_lacks(GET, &by_reference).await;
            trial.script_lacks(BY_ID, &by_id).await;
        }
        24 => {
            trial.script_cannot(GET, &by_reference, &DOCUMENT_DOES_NOT_LEX).await;
            trial.script_works(BY_ID, &by_id, &[&digest]).await;
        }
        _ => {
            trial.script_works(GET, &by_reference, &[&digest]).await;
            trial.script_works(BY_ID, &by_id, &[&digest]).await;
        }
    }
}

for_each_release!(IMAGES, day);
