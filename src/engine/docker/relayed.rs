//! Pulls through a relay: the content comes from there, and the image gets its real name. No trace of the relay stays.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use tokio::time::{interval, timeout};

use crate::base::digest::Digest;
use crate::engine::docker::{Docker, Lines, Meter, Store, accept, request, wire};
use crate::engine::{
    EngineKind,
    fault::{Class, Fault},
    pull::{LEAVING, Progress, Pull, TOLD, Via},
};

/// How long the registry may take for the manifest of an image whose content is there. Without it the image is complete
/// too.
const REAL: Duration = Duration::from_secs(20);

/// What Podman says during a pull by its own API.
#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    error: String,
}

impl Docker {
    /// Has the engine pull from the relay, and then gives the image its name.
    pub(super) async fn fetch_via(
        &self,
        pull: &Pull,
        via: &Via,
        manifest: &Digest,
        meter: &mut Meter,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Fault> {
        if let Err(fault) = self.forget_relays(via).await {
            tracing::debug!(%fault, "names of an earlier relay stay");
        }
        let there = via.name(manifest);
        let done = async {
            if self.met().await?.kind == EngineKind::Podman {
                self.fetch_by_podman(&there, via, progress).await?;
            } else {
                self.fetch(pull, &via.repository, meter, progress).await?;
            }
            self.name(pull, &there, manifest).await
        };
        let done = done.await;
        let forgotten = self.forget_name(&there).await;
        done.and(forgotten)
    }

    /// Removes the relay's name after a pull that was stopped in the middle.
    pub(super) async fn leave_relay(&self, pull: &Pull) {
        if let (Some(via), Some(manifest)) = (&pull.via, &pull.manifest) {
            let _ = timeout(LEAVING, self.forget_name(&via.name(manifest))).await;
        }
    }

    /// Gives the image of this name by digest its real one.
    ///
    /// Docker's own store knows an image by the digest of its manifest only if it has pulled it from that registry. The
    /// content is there, so this takes the manifest alone; if the registry does not answer, the tag is enough.
    async fn name(&self, pull: &Pull, there: &str, manifest: &Digest) -> Result<(), Fault> {
        let is_asked = self.met().await?.kind == EngineKind::Docker && self.store().await? == Store::Own;
        if is_asked {
            let mut meter = Meter::new(&pull.layers);
            let asked = timeout(REAL, self.fetch(pull, &pull.repository, &mut meter, &|_| ())).await;
            if matches!(asked, Ok(Ok(()))) {
                return self.tag(&format!("{}@{manifest}", pull.repository), pull).await;
            }
        }
        self.tag(there, pull).await
    }

    /// Has Podman pull by its own API: only that one takes a registry without TLS for a single pull. It says nothing of
    /// bytes, so the relay does.
    async fn fetch_by_podman(
        &self,
        there: &str,
        via: &Via,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Fault> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("reference", &format!("docker://{there}"))
            .append_pair("tlsVerify", "false")
            .finish();
        let path = format!("/v4.0.0/libpod/images/pull?{query}");
        let pulling = async {
            let request = request(Method::POST, &path)?;
            let answer = self.patiently(self.dial.send(request, u64::MAX)).await?;
            let mut lines = Lines::new(accept(answer, self.patience.answer).await?.into_body());
            while let Some(Said { error }) = self.patiently(lines.next()).await?? {
                if !error.is_empty() {
                    return Err(Fault::told(&error));
                }
            }
            Ok(())
        };
        tokio::pin!(pulling);
        let mut told = interval(TOLD);
        loop {
            tokio::select! {
                done = &mut pulling => return done,
                _ = told.tick() => progress(via.progress()),
            }
        }
    }

    /// Removes the names of relays that are gone: a process that was killed could not.
    async fn forget_relays(&self, present: &Via) -> Result<(), Fault> {
        let images: Vec<wire::Image> = self.get("/images/json", self.patience.answer).await?;
        for name in images.iter().flat_map(wire::Image::names_by_relays) {
            if !present.is_left(name).await {
                continue;
            }
            match self.forget_name(name).await {
                Err(fault) if fault.class != Class::InUse => return Err(fault),
                _ => {}
            }
        }
        Ok(())
    }
}
