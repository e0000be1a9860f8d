//! Checks the aliases: whether each still means what it was given for.

use std::collections::HashMap;

use serde::Deserialize;

use crate::cli::{api::Client, doctor::finding::Finding, json, operation::Operation};

const FILE: &str = include_str!("../operations/doctor.graphql");
pub(crate) const ALIASED: Operation<(), json::List<Named>> = Operation::new(FILE, "AliasedImages", "images");

/// An image with its names.
#[derive(Deserialize)]
pub(crate) struct Named {
    #[serde(deserialize_with = "json::text")]
    registry: String,
    #[serde(deserialize_with = "json::text")]
    name: String,
    #[serde(deserialize_with = "json::text")]
    tag: String,
    #[serde(deserialize_with = "json::list")]
    aliases: Vec<String>,
}

/// Looks for aliases that are the names of other images, which win.
pub(super) async fn look_over(client: &Client) -> Option<Finding> {
    const CHECK: &str = "aliases";
    let images = match client.ask(&ALIASED, ()).await {
        Ok(images) => images.0,
        Err(why) => return Some(Finding::failed(CHECK, &why)),
    };
    let shadowed = shadowed(&images);
    let (alias, _) = shadowed.first()?;
    let remedy = format!("give the image another alias: wharf image dealias {alias}");
    let said: Vec<_> = shadowed.iter().map(|(alias, name)| format!("{alias} now means {name}")).collect();
    Some(Finding::warn(CHECK, format!("an image's own name wins over an alias: {}", said.join(", ")), remedy))
}

/// The aliases that are an image's own name, in full or in short, with the image's name.
fn shadowed(images: &[Named]) -> Vec<(String, String)> {
    let canonical = |image: &Named| format!("{}/{}:{}", image.registry, image.name, image.tag);
    let names: HashMap<String, String> = images
        .iter()
        .flat_map(|image| {
            let full = canonical(image);
            [(full.clone(), full.clone()), (format!("{}:{}", image.name, image.tag), full)]
        })
        .collect();
    let mut found = Vec::new();
    for image in images {
        for alias in &image.aliases {
            let meant = names.get(alias).or_else(|| names.get(&format!("{alias}:latest")));
            if let Some(meant) = meant.filter(|meant| **meant != canonical(image)) {
                found.push((alias.clone(), meant.clone()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Named, shadowed};

    #[test]
    fn aliases_that_are_the_names_of_other_images_are_found() {
        let image = |name: &str, tag: &str, aliases: &[&str]| Named {
            registry: "cr.lab".into(),
            name: name.into(),
            tag: tag.into(),
            aliases: aliases.iter().map(|&alias| alias.into()).collect(),
        };
        let images = [
            image("stable/python", "3.9", &["py", "lab/other:1", "cr.lab/lab/new:1", "lab/app"]),
            image("lab/other", "1", &["stable"]),
            image("lab/new", "1", &[]),
            image("lab/app", "latest", &["lab/app"]),
        ];
        let found = shadowed(&images);
        let aliases: Vec<&str> = found.iter().map(|(alias, _)| alias.as_str()).collect();
        assert_eq!(aliases, ["lab/other:1", "cr.lab/lab/new:1", "lab/app"]);
        assert_eq!(found[0].1, "cr.lab/lab/other:1");
    }
}
