//! Keeping what was preloaded from Kubernetes' own tidying.
//!
//! A kubelet whose disk runs full removes images that no pod uses, which is what preloaded ones are until a class
//! begins. It passes over those that CRI calls pinned, and containerd calls so what has a label. CRI itself can't give
//! it, so containerd is asked; releases before 1.7 keep the label and don't tell the kubelet.

use crate::engine::{
    cri::{CONTAINERD, Cri, Shown, message as m},
    fault::Fault,
};

/// The label that pins, and its value.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// Ours beside it: what an operator pinned is not ours to remove.
const PRELOADED: (&str, &str) = ("wharf.preloaded", "true");

impl Cri {
    /// Pins an image under this name. That it can't be is no failure of the pull: the image is there.
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
        let Some(mut image) = self.named(shown.tag(name)).await? else { return Ok(()) };
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

    /// Whether the image is pinned by us alone, so that it may go.
    pub(in crate::engine::cri) async fn is_pinned_by_us(&self, shown: &Shown, name: &str) -> bool {
        let image = self.named(shown.tag(name)).await;
        image.is_ok_and(|image| image.is_some_and(|image| is_ours(&image)))
    }

    /// A name as containerd itself keeps it.
    async fn named(&self, tag: Option<&String>) -> Result<Option<m::NamedImage>, Fault> {
        let Some(name) = tag.cloned() else { return Ok(None) };
        let which = m::GetImageRequest { name };
        let found: m::GetImageResponse =
            self.ask("/containerd.services.images.v1.Images/Get", &which).await?;
        Ok(found.image)
    }
}

fn is_ours(image: &m::NamedImage) -> bool {
    let has = |(label, value): (&str, &str)| image.labels.get(label).is_some_and(|is| is == value);
    has(PINNED) && has(PRELOADED)
}
