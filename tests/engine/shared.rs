//! Tests of what every engine does: each behaviour runs on each engine.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio_util::sync::CancellationToken;
use wharf::base::digest::Digest;
use wharf::base::secret::Secret;
use wharf::engine::fault::Class;
use wharf::engine::image::{Held, Removal, Uses};
use wharf::engine::pull::{Credentials, Pull, Pulled};
use wharf::engine::{Change, Engine, EngineKind};

use super::{lab_image, pull_of, run};
use crate::support::dockerd::Store;
use crate::support::image::Image;
use crate::support::node::{Flavour, Node};
use crate::support::proxy::CountingProxy;
use crate::support::registry::RealRegistry;
use crate::support::release::Release;
use crate::support::wait::{PATIENCE, until};

/// Makes a test of each behaviour for each engine of each release; of those after the semicolon for engines with Docker's
/// API. Debian's sid changes from day to day, so the tests on it run only when `make sid` asks for them.
macro_rules! on_each_engine {
    ($($all:ident)*; $($api:ident)*) => {
        on_each_engine!(@engine [] docker Docker(Own, Docker): $($all)* $($api)*);
        on_each_engine!(@engine [] podman Podman(Own): $($all)* $($api)*);
        on_each_engine!(@engine [] containerd Containerd(Own): $($all)*);
        on_each_engine!(@engine [] docker_of_trixie Docker(Trixie, Docker): $($all)* $($api)*);
        on_each_engine!(@engine [] docker_of_trixie_on_containerd Docker(Trixie, Containerd):
            $($all)* $($api)*);
        on_each_engine!(@engine [] podman_of_trixie Podman(Trixie): $($all)* $($api)*);
        on_each_engine!(@engine [] containerd_of_trixie Containerd(Trixie): $($all)*);
        on_each_engine!(@engine [#[ignore = "sid changes"]] docker_of_sid Docker(Sid, Docker):
            $($all)* $($api)*);
        on_each_engine!(@engine [#[ignore = "sid changes"]] docker_of_sid_on_containerd
            Docker(Sid, Containerd): $($all)* $($api)*);
        on_each_engine!(@engine [#[ignore = "sid changes"]] podman_of_sid Podman(Sid): $($all)* $($api)*);
        on_each_engine!(@engine [#[ignore = "sid changes"]] containerd_of_sid Containerd(Sid): $($all)*);
    };
    (@engine $mark:tt $engine:ident $kind:ident($release:ident $(, $store:ident)?): $($behaviour:ident)*) => {
        mod $engine {
            const FLAVOUR: super::Flavour =
                super::Flavour::$kind(super::Release::$release $(, super::Store::$store)?);
            $(on_each_engine!(@test $mark $behaviour);)*
        }
    };
    (@test [$($mark:tt)*] $behaviour:ident) => {
        #[tokio::test]
        $($mark)*
        async fn $behaviour() {
            super::$behaviour(FLAVOUR).await;
        }
    };
}

on_each_engine! {
    an_engine_tells_who_it_is_and_what_room_it_has
    an_image_comes_and_goes_by_its_name
    what_others_pulled_from_an_index_is_found_by_its_name
    nothing_is_left_of_a_removed_image
    an_image_with_names_in_two_repositories_goes_with_the_last
    what_somebody_also_pulled_by_its_digest_goes_too
    a_moved_tag_is_never_taken_for_the_image
    the_image_that_a_moved_tag_has_left_goes_by_its_id
    what_others_do_is_heard
    a_pull_is_stopped_in_the_engine
    an_engine_killed_in_the_middle_is_gone_and_a_new_pull_ends_well
    credentials_reach_the_registry_and_nobody_else
    each_failure_has_its_class;
    // CRI tells nothing of a pull and removes an image with all its names by digest, and nothing here makes containers
    // for Kubernetes.
    the_bytes_of_a_slow_pull_are_told
    a_name_by_digest_in_another_repository_is_left_alone
    an_image_that_a_container_uses_stays
}

/// A registry and an engine; `None` if either is not available.
async fn scene(flavour: Flavour) -> Option<(RealRegistry, Node)> {
    Some((RealRegistry::open().await?, Node::start_of(flavour).await?))
}

/// Whether it is a Docker that calls images by what they were pulled by.
fn is_on_containerd(flavour: Flavour) -> bool {
    matches!(flavour, Flavour::Docker(_, Store::Containerd))
}

/// Returns the engine's ID of an image that was pulled by its manifest.
fn id_of(flavour: Flavour, pull: &Pull) -> &Digest {
    if is_on_containerd(flavour) { pull.manifest.as_ref().unwrap() } else { &pull.config }
}

async fn an_engine_tells_who_it_is_and_what_room_it_has(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let engine = node.engine();
    let about = engine.about().await.unwrap();
    assert_eq!((about.kind, about.os.as_str()), (flavour.kind(), "linux"));
    assert_eq!(about.architecture, std::env::consts::ARCH);
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(about.hostname, hostname.trim());
    let version = match flavour {
        Flavour::Docker(Release::Trixie, _) => "26.",
        Flavour::Podman(Release::Trixie) => "5.",
        Flavour::Containerd(Release::Trixie) => "1.7.",
        _ => "",
    };
    assert!(about.version.starts_with(version), "{about:?}");
    assert!(about.version.starts_with(|c: char| c.is_ascii_digit()), "{about:?}");
    assert_eq!(engine.about().await.unwrap(), about, "it is the same one whenever it is asked");

    let disk = engine.disk().await.unwrap();
    let (free, total) = (disk.free_bytes.unwrap(), disk.total_bytes.unwrap());
    assert!(0 < free && free < total && disk.images_bytes == 0, "{disk:?}");
    assert_eq!(engine.images().await.unwrap(), []);

    let built = registry.push(&lab_image("1")).await;
    run(&*engine, &pull_of(registry.host(), &built)).await.0.unwrap();
    // containerd updates its counts about every second.
    until("the image to take room", PATIENCE, async || {
        (engine.disk().await.unwrap().images_bytes >= 200_000).then_some(())
    })
    .await;
}

async fn an_image_comes_and_goes_by_its_name(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1")).await;
    registry.tag(&built, &["other"]).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    assert_eq!(engine.find(&pull.name()).await.unwrap(), None);
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Absent));

    let (pulled, seen) = run(&*engine, &pull).await;
    let Pulled { held, fetched: true, .. } = pulled.unwrap() else { panic!("it was not there before") };
    assert_eq!((&held.digest, &held.names), (id_of(flavour, &pull), &vec![pull.name()]), "{held:?}");
    assert_eq!(held.manifests, [pull.manifest.clone().unwrap()], "{held:?}");
    assert!(held.size_bytes >= 200_000, "{held:?}");
    let last = seen.last().unwrap();
    assert_eq!((last.bytes_done, last.layers_done), (last.bytes_total, last.layers_total), "{seen:#?}");
    match flavour.kind() {
        // In containerd's store, Docker reports the sizes of layers that take longer than a moment.
        EngineKind::Docker if is_on_containerd(flavour) => {
            assert!(last.layers_total == 2 && seen.len() > 3, "{seen:#?}");
        }
        // Docker reports everything.
        EngineKind::Docker => {
            assert!(last.layers_total == 2 && last.bytes_total >= 200_000 && seen.len() > 3, "{seen:#?}");
        }
        // Podman reports the sizes of layers that take longer than a moment.
        EngineKind::Podman => assert!(last.layers_total == 2 && seen.len() > 3, "{seen:#?}"),
        // containerd reports nothing, and wharf makes no numbers up.
        _ => assert!(seen.len() == 2 && last.bytes_total == 0 && last.layers_total == 0, "{seen:#?}"),
    }
    let listed = engine.images().await.unwrap();
    // In containerd's store, Docker counts what is unpacked in a list, and only there.
    let size_bytes = if is_on_containerd(flavour) { listed[0].size_bytes } else { held.size_bytes };
    assert_eq!(listed, [Held { size_bytes, ..held }]);
    let shown = match flavour {
        Flavour::Containerd(_) => pull.manifest.as_ref().unwrap(),
        _ => id_of(flavour, &pull),
    };
    assert_eq!(node.listed().await, [format!("{} {shown}", pull.name())]);

    let other = Pull { tag: "other".into(), ..pull.clone() };
    let also = run(&*engine, &other).await.0.unwrap();
    assert_eq!(also.held.names, [pull.name(), other.name()]);
    // Only CRI has to ask the registry about a second name.
    assert_eq!(also.fetched, flavour.kind() == EngineKind::Containerd);
    // A repeated pull fetches nothing, and works even without the registry.
    drop(registry);
    let (again, seen) = run(&*engine, &pull).await;
    assert_eq!((again.unwrap().fetched, seen.len()), (false, 1));

    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Untagged));
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Absent));
    assert_eq!(engine.images().await.unwrap()[0].names, [other.name()]);
    assert_eq!(node.listed().await, [format!("{} {shown}", other.name())]);
    assert_eq!(engine.remove(&other.name()).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(engine.images().await.unwrap(), [], "what the digest was called goes with the last name");
    assert_eq!(node.listed().await, [""; 0]);
}

async fn what_others_pulled_from_an_index_is_found_by_its_name(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1").platforms(&["linux/amd64", "linux/arm64"])).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    node.pull(&pull.name()).await;
    let found =
        until("the image to be there", PATIENCE, async || engine.find(&pull.name()).await.unwrap()).await;
    assert_eq!(found.names, [pull.name()]);
    let index: Digest = built.digest().parse().unwrap();
    assert_eq!(found.digest, if is_on_containerd(flavour) { index.clone() } else { pull.config.clone() });
    assert!(found.manifests.contains(&index), "{found:?}");
    assert!(!run(&*engine, &pull).await.0.unwrap().fetched, "it was there");
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(engine.find(&pull.name()).await.unwrap(), None);
    assert_eq!(node.everything().await, [""; 0]);
}

async fn nothing_is_left_of_a_removed_image(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1")).await;
    registry.tag(&built, &["2"]).await;
    let many = Image::new("lab/many", "1").real_layers(1, 1000).platforms(&["linux/amd64", "linux/arm64"]);
    let many = registry.push(&many).await;
    let engine = node.engine();
    let (one, many) = (pull_of(registry.host(), &built), pull_of(registry.host(), &many));
    for pull in [&one, &many] {
        run(&*engine, pull).await.0.unwrap();
        assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Removed { freed_bytes: None }));
        assert_eq!(node.everything().await, [""; 0], "{}", pull.name());
    }
    let two = Pull { tag: "2".into(), ..one.clone() };
    for pull in [&one, &two] {
        run(&*engine, pull).await.0.unwrap();
    }
    assert_eq!(engine.remove(&one.name()).await, Ok(Removal::Untagged));
    assert_eq!(engine.find(&two.name()).await.unwrap().unwrap().names, [two.name()]);
    assert_eq!(engine.remove(&two.name()).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(engine.images().await.unwrap(), []);
    assert_eq!(node.everything().await, [""; 0]);
}

async fn an_image_with_names_in_two_repositories_goes_with_the_last(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let one = registry.push(&lab_image("1")).await;
    // The same bytes in another repository.
    let copy = Image::new("lab/copy", "1").content("lab/python:1").real_layers(2, 100_000);
    let other = registry.push(&copy).await;
    let engine = node.engine();
    let (one, other) = (pull_of(registry.host(), &one), pull_of(registry.host(), &other));
    assert_eq!(one.config, other.config);
    for (first, last) in [(&one, &other), (&other, &one)] {
        run(&*engine, &one).await.0.unwrap();
        let held = run(&*engine, &other).await.0.unwrap().held;
        assert_eq!(held.names, [other.name(), one.name()]);
        assert_eq!(engine.remove(&first.name()).await, Ok(Removal::Untagged));
        assert_eq!(engine.find(&first.name()).await.unwrap(), None);
        let left = engine.images().await.unwrap();
        assert!(left.len() == 1 && left[0].names == [last.name()], "{left:?}");
        assert_eq!(engine.remove(&last.name()).await, Ok(Removal::Removed { freed_bytes: None }));
        assert_eq!(node.everything().await, [""; 0]);
    }
}

async fn what_somebody_also_pulled_by_its_digest_goes_too(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let engine = node.engine();
    let many = Image::new("lab/many", "1").real_layers(1, 1000).platforms(&["linux/amd64", "linux/arm64"]);
    for image in [lab_image("1"), many] {
        let built = registry.push(&image).await;
        let pull = pull_of(registry.host(), &built);
        let by_digest = format!("{}@{}", pull.repository, built.digest());
        node.pull(&by_digest).await;
        until("the image to be there", PATIENCE, async || engine.images().await.unwrap().pop()).await;
        run(&*engine, &pull).await.0.unwrap();
        assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Removed { freed_bytes: None }));
        assert_eq!(engine.images().await.unwrap(), []);
        assert_eq!(node.everything().await, [""; 0], "{by_digest}");
    }
}

async fn a_name_by_digest_in_another_repository_is_left_alone(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1")).await;
    registry.push(&Image::new("lab/copy", "1").content("lab/python:1").real_layers(2, 100_000)).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    let by_digest = format!("{}/lab/copy@{}", registry.host(), built.digest());
    node.pull(&by_digest).await;
    assert!(!run(&*engine, &pull).await.0.unwrap().fetched);
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Untagged));
    assert_eq!(engine.find(&pull.name()).await.unwrap(), None);
    node.untag(&by_digest).await;
    assert_eq!(node.everything().await, [""; 0]);
}

async fn an_image_that_a_container_uses_stays(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1")).await;
    let (engine, pull) = (node.engine(), pull_of(registry.host(), &built));
    let held = run(&*engine, &pull).await.0.unwrap().held;
    let uses = async || engine.uses(&engine.images().await.unwrap()).await.unwrap().unwrap();
    assert_eq!(uses().await, Uses::default());
    let mut events = engine.events().await.unwrap();
    node.hold("homework", &pull.name()).await;
    let heard = async {
        while events.next().await.unwrap().unwrap() != Change::Containers {}
        uses().await
    };
    let told = tokio::time::timeout(PATIENCE, heard).await.expect("the container is heard of");
    let id = [held.digest.clone()];
    assert_eq!(told, Uses { now: id.clone().into(), lately: id.clone().into() });
    let before = node.everything().await;
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::InUse { containers: vec!["homework".into()] }));
    assert_eq!(engine.find(&pull.name()).await.unwrap(), Some(held));
    assert_eq!(node.everything().await, before);
    node.let_go("homework").await;
    assert_eq!(uses().await, Uses { now: [].into(), lately: id.into() }, "it was a moment ago");
    assert_eq!(engine.remove(&pull.name()).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(node.everything().await, [""; 0]);
}

async fn the_bytes_of_a_slow_pull_are_told(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&Image::new("lab/big", "1").real_layers(2, 8_000_000)).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    // Podman tells them every second, and containerd counts whole mebibytes.
    proxy.trickle(Duration::from_millis(250));
    let (pulled, seen) = run(&*node.engine(), &pull_of(&proxy.host(), &built)).await;
    assert!(pulled.unwrap().fetched);
    let halves = seen.iter().filter(|now| 0 < now.bytes_done && now.bytes_done < now.bytes_total);
    assert!(halves.count() > 0 && seen.last().unwrap().bytes_total >= 16_000_000, "{seen:#?}");
}

async fn a_moved_tag_is_never_taken_for_the_image(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let old = registry.push(&lab_image("1")).await;
    let new = registry.push(&lab_image("1").content("rebuilt")).await;
    let engine = node.engine();
    let (pull, newer) = (pull_of(registry.host(), &old), pull_of(registry.host(), &new));
    let is_moved = |fault: wharf::engine::fault::Fault| {
        assert!(fault.class == Class::Other && fault.message.contains("tag moved"), "{fault}");
        assert!(fault.message.contains(id_of(flavour, &newer).as_str()), "{fault}");
    };
    if flavour.kind() == EngineKind::Containerd {
        // containerd can pull only by the tag: it gets another image, and the fault says so.
        is_moved(run(&*engine, &pull).await.0.unwrap_err());
        assert_eq!(engine.find(&pull.name()).await.unwrap().unwrap().digest, newer.config);
        assert_eq!(engine.find(pull.config.as_str()).await.unwrap(), None);
        return;
    }
    // A pull by the image's manifest still works.
    assert_eq!(run(&*engine, &pull).await.0.unwrap().held.digest, *id_of(flavour, &pull));
    if is_on_containerd(flavour) {
        // Docker tells no config there, so only a manifest shows what a tag leads to.
        assert_eq!(run(&*engine, &newer).await.0.unwrap().held.names, [newer.name()]);
        assert_eq!(run(&*engine, &pull).await.0.unwrap().held.names, [pull.name()]);
    } else {
        let by_tag = Pull { manifest: None, ..newer.clone() };
        assert_eq!(run(&*engine, &by_tag).await.0.unwrap().held.names, [by_tag.name()]);
        // The old image has lost its name but is still there: the pull only has to name it again.
        let back = run(&*engine, &Pull { manifest: None, ..pull.clone() }).await.0.unwrap();
        assert!(!back.fetched && back.held.digest == pull.config, "{back:?}");
    }

    assert_eq!(
        engine.remove(id_of(flavour, &pull).as_str()).await,
        Ok(Removal::Removed { freed_bytes: None })
    );
    is_moved(run(&*engine, &Pull { manifest: None, ..pull.clone() }).await.0.unwrap_err());
}

async fn the_image_that_a_moved_tag_has_left_goes_by_its_id(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let engine = node.engine();
    let old = pull_of(registry.host(), &registry.push(&lab_image("1")).await);
    run(&*engine, &old).await.0.unwrap();
    let newer = pull_of(registry.host(), &registry.push(&lab_image("1").content("rebuilt")).await);
    assert!(run(&*engine, &newer).await.0.unwrap().fetched);
    let left = engine.find(id_of(flavour, &old).as_str()).await.unwrap().unwrap();
    assert_eq!(left.names, [""; 0]);
    assert_eq!(engine.remove(left.digest.as_str()).await, Ok(Removal::Removed { freed_bytes: None }));
    let images = engine.images().await.unwrap();
    assert!(images.len() == 1 && images[0].names == [newer.name()], "{images:?}");
    assert_eq!(engine.remove(&newer.name()).await, Ok(Removal::Removed { freed_bytes: None }));
    assert_eq!(node.everything().await, [""; 0]);
}

async fn what_others_do_is_heard(flavour: Flavour) {
    let Some((registry, mut node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1")).await;
    let engine = node.engine();
    let mut events = engine.events().await.unwrap();
    let pull = pull_of(registry.host(), &built);
    // Engines differ in how many events they send; each event is a hint to look again.
    let mut hear = async |reference: &str, is_there: bool| {
        tokio::time::timeout(PATIENCE, async {
            loop {
                events.next().await.unwrap().unwrap();
                if engine.find(reference).await.unwrap().is_some() == is_there {
                    return;
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("it was not heard that {reference} came or went"));
    };
    let other = "docker.io/library/alpine:3";
    node.pull(&pull.name()).await;
    hear(&pull.name(), true).await;
    node.tag(&pull.name(), other).await;
    hear(other, true).await;
    node.untag(other).await;
    hear(other, false).await;
    node.untag(&pull.name()).await;
    hear(id_of(flavour, &pull).as_str(), false).await;

    node.kill9();
    let fault = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(fault) = events.next().await.unwrap() {
                return fault;
            }
        }
    });
    assert_eq!(fault.await.unwrap().class, Class::EngineGone);
    assert!(events.next().await.is_none());
    assert_eq!(engine.about().await.unwrap_err().class, Class::EngineGone);
    node.restart().await;
    assert_eq!(engine.about().await.unwrap().kind, flavour.kind());
}

/// Starts a pull that is held up after the manifest and the config.
async fn begun(
    proxy: &CountingProxy,
    engine: &Arc<dyn Engine>,
    pull: &Pull,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<Result<Pulled, wharf::engine::fault::Fault>> {
    let gate = proxy.gate();
    proxy.answer(move |request| {
        if request.method == "GET" && request.target.contains("/manifests/") {
            gate.send_replace(false);
        }
        None
    });
    let (engine, pull, stop) = (Arc::clone(engine), pull.clone(), stop.clone());
    let task = tokio::spawn(async move { engine.pull(&pull, &|_| (), &stop).await });
    until("layers to be asked for", PATIENCE, async || {
        assert!(!task.is_finished(), "it ended before it asked for layers: {:#?}", proxy.log());
        let log = proxy.log();
        let manifest = log.iter().any(|e| e.is_manifest() && e.method == "GET");
        (manifest && proxy.arrived() > log.len()).then_some(())
    })
    .await;
    assert!(!task.is_finished());
    task
}

async fn a_pull_is_stopped_in_the_engine(flavour: Flavour) {
    let Some((registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&Image::new("lab/big", "1").real_layers(8, 1_000_000)).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let (engine, pull) = (node.engine(), pull_of(&proxy.host(), &built));
    let stop = CancellationToken::new();
    let task = begun(&proxy, &engine, &pull, &stop).await;
    stop.cancel();
    assert_eq!(task.await.unwrap().unwrap_err().class, Class::Stopped);
    // The requested layers arrive, and the engine throws them away.
    proxy.behave();
    let is_quiet = async || {
        let before = proxy.arrived();
        tokio::time::sleep(Duration::from_millis(700)).await;
        (proxy.arrived() == before).then_some(())
    };
    until("the engine to ask for no more", PATIENCE, is_quiet).await;
    assert_eq!(engine.images().await.unwrap(), [], "the engine went on pulling");
    assert_eq!(node.listed().await, [""; 0]);
    // The image can be pulled again.
    assert_eq!(run(&*engine, &pull).await.0.unwrap().held.digest, *id_of(flavour, &pull));
}

async fn an_engine_killed_in_the_middle_is_gone_and_a_new_pull_ends_well(flavour: Flavour) {
    let Some((registry, mut node)) = scene(flavour).await else { return };
    let built = registry.push(&Image::new("lab/big", "1").real_layers(4, 1_000_000)).await;
    let proxy = CountingProxy::start(&registry.url()).await;
    let (engine, pull) = (node.engine(), pull_of(&proxy.host(), &built));
    let task = begun(&proxy, &engine, &pull, &CancellationToken::new()).await;
    node.kill9();
    let fault = task.await.unwrap().unwrap_err();
    assert!(fault.class == Class::EngineGone && fault.is_transient(), "{fault}");
    proxy.behave();
    node.restart().await;
    assert_eq!(run(&*engine, &pull).await.0.unwrap().held.digest, *id_of(flavour, &pull));
}

async fn credentials_reach_the_registry_and_nobody_else(flavour: Flavour) {
    let (Some(registry), Some(node)) = (RealRegistry::with_password().await, Node::start_of(flavour).await)
    else {
        return;
    };
    let built = registry.push(&lab_image("1")).await;
    let (engine, mut pull) = (node.engine(), pull_of(registry.host(), &built));
    assert_eq!(run(&*engine, &pull).await.0.unwrap_err().class, Class::Unauthorized);
    let with = |username: &str, password: &str| {
        Some(Credentials { username: username.into(), password: Secret::new(password) })
    };
    let (user, password) = registry.credentials().unwrap();
    // In base64, these passwords have the two characters in which the alphabets differ.
    pull.credentials = with(user, "wrong?>~?>~");
    let fault = run(&*engine, &pull).await.0.unwrap_err();
    assert_eq!(fault.class, Class::Unauthorized, "{fault}");
    assert!(!fault.to_string().contains("wrong"), "{fault}");
    assert!(!fault.message.contains("no basic auth credentials"), "they did not reach the registry: {fault}");
    pull.credentials = with(user, password);
    assert_eq!(run(&*engine, &pull).await.0.unwrap().held.digest, *id_of(flavour, &pull));
    assert!(!node.log().contains(password), "the password is in the engine's log");
}

async fn each_failure_has_its_class(flavour: Flavour) {
    let Some((mut registry, node)) = scene(flavour).await else { return };
    let built = registry.push(&lab_image("1")).await;
    let arm = registry.push(&Image::new("lab/arm", "1").platforms(&["linux/arm64"])).await;
    let engine = node.engine();
    let good = pull_of(registry.host(), &built);

    let unknown = Pull { tag: "none".into(), manifest: None, ..good.clone() };
    let fault = run(&*engine, &unknown).await.0.unwrap_err();
    assert_eq!(fault.class, Class::NotFound, "{fault}");
    if flavour.kind() != EngineKind::Containerd {
        let zero = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let fault = run(&*engine, &Pull { manifest: Some(zero), ..good.clone() }).await.0.unwrap_err();
        assert_eq!(fault.class, Class::NotFound, "{fault}");
    }
    let foreign = Pull {
        repository: format!("{}/{}", registry.host(), arm.repository),
        manifest: None,
        platform: Some("linux/amd64".into()),
        ..good.clone()
    };
    let fault = run(&*engine, &foreign).await.0.unwrap_err();
    assert_eq!(fault.class, Class::WrongPlatform, "{fault}");
    for name in ["lab/UPPER", "127.0.0.1:1/a?b=c", "127.0.0.1:1/../a"] {
        let odd = Pull { repository: name.into(), ..good.clone() };
        assert_eq!(run(&*engine, &odd).await.0.unwrap_err().class, Class::Other, "{name}");
    }
    registry.stop();
    let fault = run(&*engine, &good).await.0.unwrap_err();
    assert!(fault.class == Class::Network && fault.is_transient(), "{fault}");
    assert_eq!(engine.images().await.unwrap(), []);
}
