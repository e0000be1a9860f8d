//! Finds the image that a user means by a reference.

use std::sync::Arc;

use crate::access::visibility::Subject;
use crate::base::arch;
use crate::base::ids::ImageId;
use crate::base::reference::{Reference, full_name, shown};
use crate::base::{Error, Result};
use crate::catalog::image::Image;
use crate::catalog::index::{self, Index};

/// How many candidates the message about an ambiguous reference names.
const NAMED: usize = 5;

/// All images a reference can mean, one for each architecture of one name, among those that `may_see` admits. An
/// image the caller may not see plays no part, so it can neither be found nor make another reference ambiguous.
///
/// A reference is an image id, a canonical name (`registry/name:tag`, with the tag `latest` if omitted, the registry in
/// any spelling), a canonical name with a digest behind `@`, a digest alone, `name:tag` if exactly one registry has it,
/// or an alias, if it is none of these. An architecture narrows the result.
///
/// # Errors
/// [`Error::Missing`] when there is no such image, [`Error::Conflict`] when the reference means images of several
/// names.
pub(crate) fn of_one_name(
    index: &Index,
    text: &str,
    architecture: Option<&str>,
    may_see: impl Fn(&Subject) -> bool + Copy,
) -> Result<Vec<Arc<Image>>> {
    let architecture = architecture.map(arch::named);
    let is_wanted =
        |image: &Image| architecture.as_ref().is_none_or(|wanted| *wanted == image.record.architecture);
    let found = by_name(index, text.trim(), is_wanted, may_see)?;
    let mut names: Vec<String> = found.iter().map(|image| image.record.canonical().to_string()).collect();
    names.dedup();
    match names.len() {
        0 => Err(Error::missing("image", shown(text))),
        1 => Ok(found),
        count => {
            names.truncate(NAMED);
            let which = format!("{} names {count} images: {}", shown(text), names.join(", "));
            Err(Error::Ambiguous(format!("{which}; give the registry and the tag as well")))
        }
    }
}

/// The one image a reference means; if it has several architectures, the default one if that is among them.
///
/// # Errors
/// Those of [`of_one_name`], and [`Error::Conflict`] when the architectures leave a choice.
pub(crate) fn one(
    index: &Index,
    text: &str,
    architecture: Option<&str>,
    may_see: impl Fn(&Subject) -> bool + Copy,
) -> Result<Arc<Image>> {
    let found = of_one_name(index, text, architecture, may_see)?;
    let preferred = found.iter().find(|image| image.record.architecture == arch::DEFAULT);
    match (preferred, found.as_slice()) {
        (Some(image), _) | (None, [image]) => Ok(Arc::clone(image)),
        _ => {
            let architectures: Vec<_> =
                found.iter().map(|image| image.record.architecture.as_str()).collect();
            let which = format!("{} has several architectures: {}", shown(text), architectures.join(", "));
            Err(Error::Ambiguous(format!("{which}; name one")))
        }
    }
}

/// Whether this is a name of an image by itself: in full or in short.
pub(crate) fn is_own_name(index: &Index, text: &str) -> bool {
    Reference::parse(text).is_ok_and(|reference| !by_own_name(index, &reference, index::all).is_empty())
}

fn by_name(
    index: &Index,
    text: &str,
    is_wanted: impl Fn(&Image) -> bool,
    may_see: impl Fn(&Subject) -> bool + Copy,
) -> Result<Vec<Arc<Image>>> {
    let of = |images: Vec<&Arc<Image>>| {
        images.into_iter().filter(|image| is_wanted(image)).cloned().collect::<Vec<_>>()
    };
    if let Ok(id) = text.parse::<ImageId>() {
        return Ok(of(index.image(id, may_see).into_iter().collect()));
    }
    let reference = Reference::parse(text).map_err(|why| Error::invalid("reference", why.to_string()));
    // An image's own name wins over an alias, which may be older than the image.
    let own = reference.as_ref().map(|reference| by_own_name(index, reference, may_see)).unwrap_or_default();
    if !own.is_empty() {
        return Ok(of(own));
    }
    match index.aliased(text, may_see) {
        Some(image) => Ok(of(vec![image])),
        None => reference.map(|_| Vec::new()),
    }
}

fn by_own_name<'a>(
    index: &'a Index,
    reference: &Reference,
    may_see: impl Fn(&Subject) -> bool + Copy,
) -> Vec<&'a Arc<Image>> {
    let has = |image: &Image| reference.digest.as_ref().is_none_or(|digest| image.has_digest(digest));
    // For a digest all images are searched, wherever it is, so that the time taken does not show how many tags a
    // repository has.
    let under_any_tag = reference.digest.is_some() && reference.tag.is_none();
    let having: Vec<&Arc<Image>> =
        if under_any_tag { index.images(may_see).filter(|image| has(image)).collect() } else { Vec::new() };
    if reference.path.is_empty() {
        return having;
    }
    let at = |path: &str| -> Vec<&'a Arc<Image>> {
        if under_any_tag {
            return having.iter().copied().filter(|image| image.record.is_in(path)).collect();
        }
        let named = format!("{path}:{}", reference.tag.as_deref().unwrap_or("latest"));
        index.images_named(&named, may_see).into_iter().filter(|image| has(image)).collect()
    };
    let spelt = reference
        .path
        .split_once('/')
        .and_then(|(host, name)| index.registry(host).map(|registry| full_name(&registry.host, name)));
    let canonical = at(spelt.as_deref().unwrap_or(&reference.path));
    if !canonical.is_empty() {
        return canonical;
    }
    // The registry is unknown: `stable/python:3.9` may still name one image of one registry.
    index.registries().flat_map(|registry| at(&full_name(&registry.host, &reference.path))).collect()
}
