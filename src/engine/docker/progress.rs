//! Turns the messages of Docker and Podman during a pull into numbers that never decrease.

use std::collections::HashMap;

use serde::Deserialize;

use crate::base::digest::Digest;
use crate::engine::fault::{Class, Fault, one_line};
use crate::engine::pull::{Layer, Progress};

/// The most layers that are followed. Docker's storage drivers end at 128; further layers are pulled but not counted.
const MAX_LAYERS: usize = 1000;
/// How many hex digits of its digest Docker calls a layer by.
const SHORT_ID: usize = 12;

/// One line of a pull.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default, rename = "progressDetail")]
    detail: Option<Detail>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default, rename = "errorDetail")]
    error_detail: Option<ErrorDetail>,
}

#[derive(Debug, Deserialize)]
struct Detail {
    #[serde(default)]
    current: Option<i64>,
    #[serde(default)]
    total: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: Option<String>,
}

/// Adds up the lines.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    layers: HashMap<String, State>,
    /// The config's short ID: Podman lists the config like a layer.
    config: Option<String>,
    shown: Progress,
}

#[derive(Debug, Default)]
struct State {
    done: u64,
    total: u64,
    /// Whether the total comes from the catalog, so that the engine's word does not change it.
    fixed: bool,
    complete: bool,
}

impl Meter {
    pub(crate) fn new(layers: &[Layer]) -> Self {
        let known = layers.iter().take(MAX_LAYERS).map(|layer| {
            (short(&layer.digest), State { total: layer.size_bytes, fixed: true, ..State::default() })
        });
        let mut meter = Self { layers: known.collect(), ..Self::default() };
        meter.add_up();
        meter
    }

    /// Leaves the image's config out of the count.
    pub(crate) fn without(mut self, config: &Digest) -> Self {
        self.config = Some(short(config));
        self
    }

    /// Reads a line; returns the progress if that changed.
    ///
    /// # Errors
    /// The failure that the line reports.
    pub(crate) fn take(&mut self, line: Line) -> Result<Option<Progress>, Fault> {
        if line.error.is_some() || line.error_detail.is_some() {
            let detail = line.error_detail.and_then(|detail| detail.message);
            let said = detail.filter(|message| !message.is_empty()).or(line.error).unwrap_or_default();
            return Err(match said.as_str() {
                "" => Fault::new(Class::Other, "the engine gave up and gave no reason"),
                said => Fault::told(said),
            });
        }
        let before = self.shown.clone();
        let status = line.status.unwrap_or_default();
        let id = line.id.unwrap_or_default();
        if is_of_layer(&status) && is_layer_id(&id) && self.config.as_ref() != Some(&id) {
            self.advance(&id, &status, line.detail.as_ref());
        }
        self.add_up();
        self.shown.message = match id.as_str() {
            "" => one_line(&status),
            id => one_line(&format!("{id}: {status}")),
        };
        Ok((self.shown != before).then(|| self.shown.clone()))
    }

    /// The progress after the pull has succeeded: all of the total is there.
    pub(crate) fn finish(&mut self, message: &str) -> Progress {
        for layer in self.layers.values_mut() {
            layer.done = layer.total;
            layer.complete = true;
        }
        self.add_up();
        message.clone_into(&mut self.shown.message);
        self.shown.clone()
    }

    fn advance(&mut self, id: &str, status: &str, detail: Option<&Detail>) {
        if self.layers.len() >= MAX_LAYERS && !self.layers.contains_key(id) {
            return;
        }
        let layer = self.layers.entry(id.to_owned()).or_default();
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let (current, total) = detail.map_or((0, 0), |detail| (number(detail.current), number(detail.total)));
        match status {
            "Downloading" => {
                if !layer.fixed {
                    layer.total = layer.total.max(total);
                }
                // Without a total a part can't be counted (some registries send no length).
                layer.done = layer.done.max(current.min(layer.total));
            }
            // A short download may have no progress lines before this one.
            "Download complete" | "Extracting" => {
                if !layer.fixed {
                    layer.total = layer.total.max(total);
                }
                layer.done = layer.total;
            }
            "Pull complete" | "Already exists" => {
                layer.done = layer.total;
                layer.complete = true;
            }
            _ => {}
        }
    }

    fn add_up(&mut self) {
        let (mut done, mut total, mut complete) = (0_u64, 0_u64, 0_u32);
        for layer in self.layers.values() {
            done = done.saturating_add(layer.done);
            total = total.saturating_add(layer.total);
            complete = complete.saturating_add(u32::from(layer.complete));
        }
        let shown = &mut self.shown;
        shown.bytes_total = shown.bytes_total.max(total);
        shown.bytes_done = shown.bytes_done.max(done).min(shown.bytes_total);
        shown.layers_total = u32::try_from(self.layers.len()).unwrap_or(u32::MAX);
        shown.layers_done = shown.layers_done.max(complete);
    }
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(SHORT_ID).collect()
}

/// `Pulling from lab/python` has an ID too: the tag.
fn is_of_layer(status: &str) -> bool {
    matches!(
        status,
        "Pulling fs layer"
            | "Waiting"
            | "Downloading"
            | "Verifying Checksum"
            | "Download complete"
            | "Extracting"
            | "Pull complete"
            | "Already exists"
    ) || status.starts_with("Retrying in ")
}

fn is_layer_id(id: &str) -> bool {
    id.len() == SHORT_ID && id.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::{Line, Meter};
    use crate::base::digest::Digest;
    use crate::engine::fault::Class;
    use crate::engine::pull::{Layer, Progress};

    fn line(text: &str) -> Line {
        serde_json::from_str(text).unwrap()
    }

    fn at(status: &str, id: &str, current: i64, total: i64) -> Line {
        line(&format!(
            r#"{{"status":"{status}","id":"{id}","progressDetail":{{"current":{current},"total":{total}}}}}"#
        ))
    }

    fn run(meter: &mut Meter, lines: Vec<Line>) -> Vec<Progress> {
        let seen: Vec<_> = lines.into_iter().filter_map(|line| meter.take(line).unwrap()).collect();
        for two in seen.windows(2) {
            assert!(
                two[0].bytes_done <= two[1].bytes_done
                    && two[0].bytes_total <= two[1].bytes_total
                    && two[0].layers_done <= two[1].layers_done,
                "{two:?}"
            );
        }
        assert!(seen.iter().all(|p| p.bytes_done <= p.bytes_total && p.layers_done <= p.layers_total));
        seen
    }

    #[test]
    fn a_pull_is_followed_from_zero_to_all() {
        let mut meter = Meter::default();
        let seen = run(
            &mut meter,
            vec![
                line(r#"{"status":"Pulling from lab/a","id":"aaaaaaaaaaaa"}"#),
                line(r#"{"status":"Pulling fs layer","progressDetail":{},"id":"64bf449abeed"}"#),
                line(r#"{"status":"Already exists","progressDetail":{},"id":"64bf449abeee"}"#),
                at("Downloading", "64bf449abeed", 100, 1000),
                at("Downloading", "64bf449abeed", 900, 1000),
                line(r#"{"status":"Download complete","progressDetail":{},"id":"64bf449abeed"}"#),
                at("Extracting", "64bf449abeed", 10, 1000),
                line(r#"{"status":"Pull complete","progressDetail":{},"id":"64bf449abeed"}"#),
                line(r#"{"status":"Download complete","progressDetail":{},"id":"64bf449abeef"}"#),
                at("Extracting", "64bf449abeef", 10, 500),
                line(r#"{"status":"Pull complete","progressDetail":{},"id":"64bf449abeef"}"#),
                line(r#"{"status":"Status: Downloaded newer image for cr.test/lab/a:1"}"#),
            ],
        );
        assert_eq!(seen[0].layers_total, 0, "a tag is no layer");
        let last = seen.last().unwrap();
        assert_eq!(
            (last.bytes_done, last.bytes_total, last.layers_done, last.layers_total),
            (1500, 1500, 3, 3)
        );
        assert_eq!(last.message, "Status: Downloaded newer image for cr.test/lab/a:1");
    }

    #[test]
    fn numbers_that_go_back_or_beyond_are_not_believed() {
        let mut meter = Meter::default();
        let id = "0123456789ab";
        let seen = run(
            &mut meter,
            vec![
                at("Downloading", id, 500, 1000),
                at("Downloading", id, 100, 1000),
                at("Downloading", id, 5000, 1000),
                at("Downloading", id, -7, -1000),
                at("Downloading", id, 10, 20),
                at("Downloading", id, i64::MAX, i64::MAX),
                at("Downloading", "0123456789ac", i64::MAX, i64::MAX),
                at("Downloading", "0123456789ad", i64::MAX, i64::MAX),
            ],
        );
        assert_eq!(seen.last().unwrap().bytes_total, u64::MAX);
    }

    #[test]
    fn what_the_catalog_knows_fixes_the_whole() {
        let layers: Vec<_> = [("a", 1000), ("b", 3000)]
            .map(|(name, size_bytes)| Layer { digest: Digest::sha256_of(name.as_bytes()), size_bytes })
            .into();
        let id = |layer: &Layer| layer.digest.hex()[..12].to_owned();
        let mut meter = Meter::new(&layers);
        let seen = run(
            &mut meter,
            vec![
                line(r#"{"status":"Pulling from lab/a","id":"1"}"#),
                line(&format!(r#"{{"status":"Already exists","id":"{}"}}"#, id(&layers[0]))),
                at("Downloading", &id(&layers[1]), 1500, 9_999_999),
            ],
        );
        assert!(seen.iter().all(|p| p.bytes_total == 4000 && p.layers_total == 2), "{seen:?}");
        assert_eq!(seen[1].bytes_done, 1000);
        assert_eq!(seen[2].bytes_done, 2500);
        assert_eq!(meter.finish("there").bytes_done, 4000);
    }

    /// Lines of Podman 4.3, word for word: they end with the download, and list the config like a layer.
    #[test]
    fn what_podman_says_is_counted_without_the_config() {
        let config: Digest = format!("sha256:733414a039ed{}", "0".repeat(52)).parse().unwrap();
        let mut meter = Meter::new(&[]).without(&config);
        let said = [("Pulling fs layer", "797d6e8c8af5"), ("Pulling fs layer", "4a6707d295d1")]
            .into_iter()
            .chain([("Download complete", "4a6707d295d1"), ("Download complete", "797d6e8c8af5")])
            .chain([("Pulling fs layer", "733414a039ed"), ("Download complete", "733414a039ed")])
            .map(|(status, id)| {
                line(&format!(r#"{{"status":"{status}","progressDetail":{{}},"id":"{id}"}}"#))
            });
        let seen = run(&mut meter, said.collect());
        assert!(seen.iter().all(|now| now.layers_total <= 2 && now.layers_done == 0), "{seen:?}");
        let last = meter.finish("done");
        assert_eq!((last.layers_done, last.layers_total, last.bytes_total), (2, 2, 0));
    }

    #[test]
    fn an_error_in_a_line_ends_it() {
        for (text, class) in [
            (
                r#"{"errorDetail":{"message":"no matching manifest for linux/amd64 in the manifest list entries"},"error":"no"}"#,
                Class::WrongPlatform,
            ),
            (r#"{"error":"unauthorized: authentication required"}"#, Class::Unauthorized),
            (r#"{"errorDetail":{},"error":""}"#, Class::Other),
            (r#"{"errorDetail":{"code":1}, "error":"write /f: no space left on device"}"#, Class::NoSpace),
            (r#"{"errorDetail":{"code":1}}"#, Class::Other),
        ] {
            assert_eq!(Meter::default().take(line(text)).unwrap_err().class, class, "{text}");
        }
    }

    #[test]
    fn a_flood_of_layers_is_bounded() {
        let mut meter = Meter::default();
        for n in 0..5000 {
            let _ = meter.take(at("Downloading", &format!("{n:012x}"), 1, 1));
        }
        assert!(meter.layers.len() <= 1000);
    }
}
