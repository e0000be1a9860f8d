//! Pulls through a relay: the content comes from there, and containerd gives the image its real name. No trace of the
//! relay stays.

use tokio::time::{interval, timeout};

use crate::base::digest::Digest;
use crate::engine::{
    cri::{CONTAINERD, Cri, message as m},
    fault::{Class, Fault},
    pull::{LEAVING, Progress, Pull, TOLD, Via},
};

/// The label by which CRI knows the images that are its own.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");

impl Cri {
    /// Has the engine pull from the relay, and then gives the image its name.
    pub(in crate::engine::cri) async fn fetch_via(
        &self,
        pull: &Pull,
        via: &Via,
        manifest: &Digest,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Fault> {
        if self.version().await?.runtime_name != CONTAINERD {
            return Err(Fault::new(Class::Other, "only containerd can give an image another name"));
        }
        if let Err(fault) = self.forget_relays(via).await {
            tracing::debug!(%fault, "names of an earlier relay stay");
        }
        let there = via.name(manifest);
        let done = async {
            self.fetch_there(&there, via, progress).await?;
            self.name(pull, &there, manifest).await
        };
        let done = done.await;
        let forgotten = self.forget(&there).await;
        done.and(forgotten)
    }

    /// Removes the relay's name after a pull that was stopped in the middle.
    pub(in crate::engine::cri) async fn leave_relay(&self, pull: &Pull) {
        if let (Some(via), Some(manifest)) = (&pull.via, &pull.manifest) {
            let _ = timeout(LEAVING, self.forget(&via.name(manifest))).await;
        }
    }

    /// Has the engine pull from the relay. It says nothing of bytes, so the relay does.
    async fn fetch_there(
        &self,
        there: &str,
        via: &Via,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Fault> {
        let question = m::PullImageRequest { image: Some(m::ImageSpec::of(there)), auth: None };
        let pulling = self.line.call("/runtime.v1.ImageService/PullImage", &question);
        tokio::pin!(pulling);
        let (mut told, mut quiet) = (interval(TOLD), interval(self.patience.quiet));
        quiet.reset();
        loop {
            tokio::select! {
                ended = &mut pulling => return ended.map(|m::PullImageResponse {}| ()),
                _ = told.tick() => progress(via.progress()),
                // A slow source makes it silent, and so does its death.
                _ = quiet.tick() => drop(self.version().await?),
            }
        }
    }

    /// Gives the image the names that a pull from its registry would give it.
    async fn name(&self, pull: &Pull, there: &str, manifest: &Digest) -> Result<(), Fault> {
        let target = self.named(there).await?.and_then(|found| found.target);
        let tag = pull.canonical()?;
        let repository = tag.rsplit_once(':').map_or(tag.as_str(), |(repository, _)| repository);
        let by_digest = format!("{repository}@{manifest}");
        for name in [tag.as_str(), by_digest.as_str()] {
            let labels = [(MANAGED.0.to_owned(), MANAGED.1.to_owned())].into();
            let image = m::NamedImage { name: name.into(), labels, target: target.clone() };
            self.put(image).await?;
        }
        self.settled(&tag, |shown| shown.is_some_and(|shown| pull.expects(&shown.held))).await;
        Ok(())
    }

    /// Makes a name, or has it stand for another image.
    async fn put(&self, image: m::NamedImage) -> Result<(), Fault> {
        let method = match self.named(&image.name).await {
            Ok(_) => "/containerd.services.images.v1.Images/Update",
            Err(fault) if fault.class == Class::NotFound => "/containerd.services.images.v1.Images/Create",
            Err(fault) => return Err(fault),
        };
        let question = m::UpdateImageRequest { image: Some(image), update_mask: None };
        let m::GetImageResponse { .. } = self.ask(method, &question).await?;
        Ok(())
    }

    /// Removes a name, if it is there.
    async fn forget(&self, there: &str) -> Result<(), Fault> {
        let which = m::DeleteImageRequest { name: there.into(), sync: false };
        match self.ask("/containerd.services.images.v1.Images/Delete", &which).await {
            Ok(m::Empty {}) => Ok(()),
            Err(fault) if fault.class == Class::NotFound => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Removes the names of relays that are gone: a process that was killed could not.
    async fn forget_relays(&self, present: &Via) -> Result<(), Fault> {
        let all: m::ListImagesResponse =
            self.ask("/runtime.v1.ImageService/ListImages", &m::ListImagesRequest {}).await?;
        for name in all.images.iter().flat_map(|image| &image.repo_digests) {
            if present.is_left(name).await {
                self.forget(name).await?;
            }
        }
        Ok(())
    }
}
