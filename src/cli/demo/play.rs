//! What happens in the demo's lab: images are loaded, some are rebuilt, a node goes away and comes back.

use std::{num::NonZeroU64, time::Duration};

use parking_lot::RwLock;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    cli::{
        demo::stage::Stage,
        failure::{Failure, Result},
        transfer,
    },
    demo::{images::DemoImages, node::Node},
};

/// One event of the play.
enum Act {
    /// Loads an image on these agents.
    Load(&'static str, &'static str),
    /// Removes an image from these agents.
    Unload(&'static str, &'static str),
}

/// The events, each with the seconds after the demo has opened: enough for a visitor who takes a minute to sign in.
const PLAY: [(u64, Act); 10] = [
    (0, Act::Load("class/vision:2026.1-cuda12.4", "@gpu")),
    (0, Act::Load("community/ros:2.0-ubuntu22.04", "@cpu")),
    (6, Act::Load("community/whisper:3.1-cuda12.4", "{gpu=h100}")),
    (12, Act::Load("community/jupyter:7.2-py312-ubuntu22.04", "@cpu")),
    (15, Act::Load("class/robotics:2026.1-ubuntu22.04", "*")),
    (24, Act::Load("community/stable-diffusion:1.9-cuda12.4", "@gpu")),
    (40, Act::Unload("stable/python:3.11-ubuntu22.04", "*")),
    (50, Act::Load("stable/python-jax:0.4-py312-cuda12.4", "i-gpu[01-02]")),
    (65, Act::Load("stable/julia:1.10-ubuntu22.04", "@cpu")),
    (80, Act::Unload("community/ros:2.0-ubuntu22.04", "i-cpu02")),
];
/// How many times a class's image is loaded and removed again afterwards.
const CLASSES: u32 = 15;
const CLASS: (&str, &str) = ("class/compilers:2026.1-ubuntu22.04", "@cpu");
const LESSON: Duration = Duration::from_secs(30);

/// Time until the flaky node first goes away: a visitor has looked around by then.
const FIRST_OUTAGE: Duration = Duration::from_secs(32);
/// How long the flaky node is away.
const OUTAGE: Duration = Duration::from_secs(14);
/// How long the flaky node stays between two outages.
const WELL: Duration = Duration::from_secs(100);

/// Images that are pushed in another build before the demo opens, so that nodes that have them have an old one.
const REBUILT: [(&str, &str); 2] =
    [("class/vision", "2026.1-cuda12.4"), ("community/jupyter", "7.2-py312-ubuntu22.04")];

/// Pushes the other builds, and has the registry read again.
pub(super) async fn push(stage: &Stage, images: &RwLock<DemoImages>) -> Result<()> {
    for (repository, tag) in REBUILT {
        if !images.write().rebuild(repository, tag, 2) {
            return Err(Failure::failed("demo", format!("no image {repository}:{tag} to build anew")));
        }
    }
    let scan = stage.rescan().await?;
    stage.end_of(scan).await
}

/// Plays until the future is dropped. Events that a visitor has made impossible are skipped.
pub(super) async fn play(stage: &Stage, flaky: &Node, per_second: NonZeroU64) {
    tokio::join!(act(stage), fail_now_and_then(flaky, per_second));
}

async fn act(stage: &Stage) {
    let opened = Instant::now();
    for (seconds, act) in PLAY {
        sleep_until(opened + Duration::from_secs(seconds)).await;
        let (operation, (image, agents)) = match act {
            Act::Load(image, agents) => (transfer::PRELOAD, (image, agents)),
            Act::Unload(image, agents) => (transfer::UNLOAD, (image, agents)),
        };
        let _ = stage.transfer(&operation, image, agents).await;
    }
    for _ in 0..CLASSES {
        for operation in [transfer::PRELOAD, transfer::UNLOAD] {
            sleep(LESSON).await;
            let (image, agents) = CLASS;
            let _ = stage.transfer(&operation, image, agents).await;
        }
    }
}

async fn fail_now_and_then(node: &Node, per_second: NonZeroU64) {
    sleep(FIRST_OUTAGE).await;
    loop {
        node.switch_off();
        sleep(OUTAGE).await;
        if let Err(why) = node.switch_on(Some(per_second)).await {
            tracing::warn!(%why, "a node of the demo does not come back");
        }
        sleep(WELL).await;
    }
}
