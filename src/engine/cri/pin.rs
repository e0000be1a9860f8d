//! Pins: they keep preloaded images from Kubernetes' own clean-up.
//!
//! When its disk runs full, a kubelet removes images that no pod uses, which is what preloaded ones are until a class
//! begins. It keeps images that CRI calls pinned, and containerd calls an image pinned if it has a certain label. CRI
//! itself can't set the label, so containerd is asked; releases before 1.7 keep the label but don't tell the kubelet.

use crate::base::digest::Digest;
use crate::engine::{
    cri::{CONTAINERD, Cri, Shown, message as m},
    fault::Fault,
};

/// The label that pins an image, and its value.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// The label that wharf sets beside it: an image that an operator pinned is not ours to remove.
const PRELOADED: (&str, &str) = ("wharf.preloaded", "true");

impl Cri {
    /// Pins an image under this name. If that fails, the pull still succeeded, since the image is there.
    pub(in crate::engine::cri) async fn pin(&self, name: &str) {
        if let Err(fault) = self.try_pin(name).await {
            tracing::warn!(image = name, %fault, "an image could not be pinned; Kubernetes may remove it");
        }
    }

    async fn try_pin(&self, name: &str) -> Result<(), Fault> {
        if self.version().await?.runtime_name != CONTAINERD {
            return Ok(());
        }
        let Some(shown) = self.show(name).await? else { return Ok(()) };
        let Some(tag) = shown.tag(name) else { return Ok(()) };
        let Some(mut image) = self.named(tag).await? else { return Ok(()) };
        if is_ours(&image) {
            return Ok(());
        }
        let paths = [PINNED, PRELOADED].map(|(label, value)| {
            image.labels.insert(label.into(), value.into());
            format!("labels.{label}")
        });
        let mask = m::FieldMask { paths: paths.into() };
        let change = m::UpdateImageRequest { image: Some(image), update_mask: Some(mask) };
        let m::Empty {} = self.ask("/containerd.services.images.v1.Images/Update", &change).await?;
        Ok(())
    }

    /// Whether wharf alone pinned the image, so that it may be removed.
    pub(in crate::engine::cri) async fn is_pinned_by_us(&self, shown: &Shown, name: &str) -> bool {
        let Some(tag) = shown.tag(name) else { return false };
        let image = self.named(tag).await;
        image.is_ok_and(|image| image.is_some_and(|image| is_ours(&image)))
    }

    /// The digest of the manifest or index that a name stands for, if the engine is containerd and says it.
    pub(in crate::engine::cri) async fn target(&self, name: &str) -> Option<Digest> {
        self.named(name).await.ok()??.target?.digest.parse().ok()
    }

    /// Asks containerd itself for a name.
    pub(in crate::engine::cri) async fn named(&self, name: &str) -> Result<Option<m::NamedImage>, Fault> {
        let which = m::GetImageRequest { name: name.into() };
        let found: m::GetImageResponse =
            self.ask("/containerd.services.images.v1.Images/Get", &which).await?;
        Ok(found.image)
    }
}

fn is_ours(image: &m::NamedImage) -> bool {
    let has = |(label, value): (&str, &str)| image.labels.get(label).is_some_and(|is| is == value);
    has(PINNED) && has(PRELOADED)
}
