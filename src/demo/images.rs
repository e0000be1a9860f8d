//! The images of the demo: what a lab for machine learning would have, and the usual clutter in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::demo::content::{Blobs, Descriptor};

/// The tags of the demo's registry, and the blobs behind them.
#[derive(Default)]
pub(crate) struct DemoImages {
    /// Blobs and manifests.
    pub(crate) blobs: Blobs,
    /// The digest behind each tag, by repository.
    pub(crate) tags: BTreeMap<String, BTreeMap<String, Arc<str>>>,
}

/// What an image is built on.
struct Base {
    name: &'static str,
    distro: &'static str,
    /// Its size in kilobytes; real images are a thousand times as large, which would take too long in a demo.
    size: usize,
    /// The resource slots that a container of it needs, and how much of each.
    needs: &'static [(&'static str, &'static str)],
    accelerators: &'static str,
    architectures: &'static [&'static str],
}

const CPU: Base = Base {
    name: "ubuntu22.04",
    distro: "ubuntu22.04",
    size: 900,
    needs: &[("cpu", "1"), ("mem", "1g")],
    accelerators: "",
    architectures: &["amd64", "arm64"],
};
const OLD: Base = Base { name: "ubuntu20.04", distro: "ubuntu20.04", size: 800, ..CPU };
const SLIM: Base = Base {
    name: "alpine3.19",
    distro: "alpine3.19",
    size: 120,
    needs: &[("cpu", "1"), ("mem", "256m")],
    ..CPU
};
const CUDA: Base = Base {
    name: "cuda12.4",
    distro: "ubuntu22.04",
    size: 2600,
    needs: &[("cpu", "2"), ("mem", "8g"), ("cuda.device", "1")],
    accelerators: "cuda",
    architectures: &["amd64"],
};
const OLD_CUDA: Base = Base { name: "cuda11.8", distro: "ubuntu20.04", size: 2200, ..CUDA };
const ROCM: Base = Base {
    name: "rocm6.0",
    size: 2400,
    needs: &[("cpu", "2"), ("mem", "8g"), ("rocm.device", "1")],
    accelerators: "rocm",
    ..CUDA
};

/// Repository, tag, base, and the kilobytes that the image adds to it.
const IMAGES: [(&str, &str, &Base, usize); 36] = [
    ("stable/python", "3.8-ubuntu20.04", &OLD, 300),
    ("stable/python", "3.9-ubuntu20.04", &OLD, 320),
    ("stable/python", "3.10-ubuntu22.04", &CPU, 340),
    ("stable/python", "3.11-ubuntu22.04", &CPU, 350),
    ("stable/python", "3.12-ubuntu22.04", &CPU, 360),
    ("stable/python", "3.12-alpine3.19", &SLIM, 180),
    ("stable/python-pytorch", "2.1-py311-cuda11.8", &OLD_CUDA, 1800),
    ("stable/python-pytorch", "2.3-py311-cuda12.4", &CUDA, 1900),
    ("stable/python-pytorch", "2.4-py312-cuda12.4", &CUDA, 2000),
    ("stable/python-pytorch", "2.4-py312-rocm6.0", &ROCM, 1900),
    ("stable/python-tensorflow", "2.13-py310-cuda11.8", &OLD_CUDA, 1700),
    ("stable/python-tensorflow", "2.16-py311-cuda12.4", &CUDA, 1800),
    ("stable/python-tensorflow", "2.16-py311-ubuntu22.04", &CPU, 900),
    ("stable/python-jax", "0.4-py312-cuda12.4", &CUDA, 1200),
    ("stable/r-base", "4.2-ubuntu20.04", &OLD, 420),
    ("stable/r-base", "4.4-ubuntu22.04", &CPU, 430),
    ("stable/julia", "1.9-ubuntu22.04", &CPU, 400),
    ("stable/julia", "1.10-ubuntu22.04", &CPU, 410),
    ("stable/octave", "8.4-ubuntu22.04", &CPU, 380),
    ("stable/nodejs", "20-alpine3.19", &SLIM, 150),
    ("stable/golang", "1.22-alpine3.19", &SLIM, 240),
    ("stable/rust", "1.78-ubuntu22.04", &CPU, 500),
    ("stable/gcc", "13.2-ubuntu22.04", &CPU, 450),
    ("community/jupyter", "7.1-py311-ubuntu22.04", &CPU, 260),
    ("community/jupyter", "7.2-py312-ubuntu22.04", &CPU, 270),
    ("community/vscode", "1.90-ubuntu22.04", &CPU, 600),
    ("community/rstudio", "2024.4-ubuntu22.04", &CPU, 520),
    ("community/ros", "2.0-ubuntu22.04", &CPU, 700),
    ("community/stable-diffusion", "1.9-cuda12.4", &CUDA, 1400),
    ("community/whisper", "3.1-cuda12.4", &CUDA, 900),
    ("community/vllm", "0.5-cuda12.4", &CUDA, 1500),
    ("community/llama.cpp", "3.2-rocm6.0", &ROCM, 800),
    ("class/robotics", "2026.1-ubuntu22.04", &CPU, 650),
    ("class/vision", "2026.1-cuda12.4", &CUDA, 1300),
    ("class/genomics", "2026.1-ubuntu22.04", &CPU, 750),
    ("class/compilers", "2026.1-ubuntu22.04", &CPU, 300),
];

/// Makes everything that the demo's registry holds.
pub(crate) fn stock() -> DemoImages {
    let mut images = DemoImages::default();
    for number in 0..IMAGES.len() {
        images.build(number, 1);
    }
    images.add_operation_image();
    images.add_rubbish();
    images
}

impl DemoImages {
    /// Pushes another build under the same name. Returns false if there is no image of that name.
    pub(crate) fn rebuild(&mut self, repository: &str, tag: &str, build: usize) -> bool {
        let named = |(other, other_tag, ..): &(&str, &str, _, _)| *other == repository && *other_tag == tag;
        let found = IMAGES.iter().position(named);
        found.is_some_and(|number| self.build(number, build))
    }

    fn build(&mut self, number: usize, build: usize) -> bool {
        let Some((repository, tag, base, size)) = IMAGES.get(number) else { return false };
        let labels = labels(repository, base);
        let created =
            format!("2026-{:02}-{:02}T08:{:02}:00Z", 1 + number % 9, 1 + number * 7 % 27, build % 60);
        let images: Vec<(&str, Descriptor)> = base
            .architectures
            .iter()
            .map(|architecture| {
                // The lower layers are shared: by all images on one base, and by all of one repository.
                let layers = [
                    self.blobs.layer(&format!("{}-{architecture}", base.name), base.size * 1024),
                    self.blobs.layer(&format!("{repository}-{architecture}"), size * 1024 / 3),
                    self.blobs
                        .layer(&format!("{repository}-{tag}-{architecture}-{build}"), size * 1024 * 2 / 3),
                ];
                (*architecture, self.blobs.image(architecture, &created, &labels, &layers))
            })
            .collect();
        let top = match images.as_slice() {
            [(_, only)] => only.clone(),
            several => self.blobs.index(several),
        };
        self.tag(repository, tag, &top);
        true
    }

    /// Adds an image for the lab's operators, which users don't look for.
    fn add_operation_image(&mut self) {
        let labels = [
            ("ai.backend.kernelspec", "1".to_owned()),
            ("ai.backend.features", "operation batch".to_owned()),
            ("org.opencontainers.image.title", "Node check".to_owned()),
        ];
        let layers = [self.blobs.layer("node-check", 90 * 1024)];
        let image = self.blobs.image("amd64", "2026-03-01T00:00:00Z", &labels, &layers);
        self.tag("ops/node-check", "1.2-alpine3.19", &image);
    }

    /// Adds what lies between the images of every registry, and must not stop a scan.
    fn add_rubbish(&mut self) {
        let chart = self.blobs.chart("jupyterhub");
        self.tag("charts/jupyterhub", "1.4.0", &chart);
        let lost = self.blobs.without_config("lost");
        self.tag("community/whisper", "3.0-broken", &lost);
        // A tag whose manifest was removed.
        let gone = Arc::from(format!("sha256:{}", "0".repeat(64)));
        self.tags.entry("class/vision".into()).or_default().insert("2025.2-cuda11.8".into(), gone);
    }

    fn tag(&mut self, repository: &str, tag: &str, top: &Descriptor) {
        let tags = self.tags.entry(repository.into()).or_default();
        tags.insert(tag.into(), Arc::clone(&top.digest));
    }
}

fn labels(repository: &str, base: &Base) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("ai.backend.kernelspec", "1".to_owned()),
        ("ai.backend.base-distro", base.distro.to_owned()),
        ("ai.backend.runtime-type", "python".to_owned()),
        ("ai.backend.runtime-path", "/usr/bin/python3".to_owned()),
        ("ai.backend.features", "batch query uid-match user-input".to_owned()),
        ("ai.backend.service-ports", "jupyter:http:8081,ttyd:http:7681".to_owned()),
        ("ai.backend.role", "COMPUTE".to_owned()),
        ("ai.backend.envs.corecount", "OPENBLAS_NUM_THREADS,OMP_NUM_THREADS,NPROC".to_owned()),
        ("org.opencontainers.image.source", format!("https://git.example.org/{repository}")),
        ("org.opencontainers.image.vendor", "Example Lab".to_owned()),
    ];
    if !base.accelerators.is_empty() {
        labels.push(("ai.backend.accelerators", base.accelerators.to_owned()));
    }
    for (slot, least) in base.needs {
        let key = match *slot {
            "cpu" => "ai.backend.resource.min.cpu",
            "mem" => "ai.backend.resource.min.mem",
            "cuda.device" => "ai.backend.resource.min.cuda.device",
            _ => "ai.backend.resource.min.rocm.device",
        };
        labels.push((key, (*least).to_owned()));
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::stock;

    #[test]
    fn another_build_has_the_same_name_and_another_digest() {
        let mut images = stock();
        let digest = |images: &super::DemoImages| images.tags["class/vision"]["2026.1-cuda12.4"].clone();
        let first = digest(&images);
        assert!(images.rebuild("class/vision", "2026.1-cuda12.4", 2));
        assert_ne!(digest(&images), first);
        assert!(images.blobs.find(&first).is_some(), "who has the first build may ask for it still");
        assert!(!images.rebuild("class/vision", "1999", 2));
    }
}
