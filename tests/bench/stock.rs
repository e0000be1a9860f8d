//! A data directory with a catalog in it, written by the catalog's own functions as a scan would write it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wharf::access::audit::{Audit, Retention};
use wharf::access::caller::{Caller, Origin, Role};
use wharf::access::tenants::Tenants;
use wharf::base::clock::Clock;
use wharf::base::digest::Digest;
use wharf::base::ids::UserId;
use wharf::catalog::image::{ConfigRecord, ImageRecord, Seconds};
use wharf::catalog::labels::Labels;
use wharf::catalog::records::{ManifestRecord, RepositoryRecord, TagRecord};
use wharf::catalog::registry::RegistryChange;
use wharf::catalog::service::Catalog;
use wharf::fleet::service::Fleet;
use wharf::store::Store;

pub const HOST: &str = "cr.lab.invalid";
const TAGS: usize = 100;
/// Layers of each image; Docker's official images have four to ten, machine learning images twice as many.
const LAYERS: usize = 16;
/// Repositories per commit: it affects only how long filling takes.
const AT_ONCE: usize = 20;

/// Asks for every field that an image has in the seed's schema.
pub const QUERY: &str =
    "{ images { name humanized_name tag registry digest labels { key value } aliases size_bytes
    resource_limits { key min max } supported_accelerators installed installed_agents } }";

/// A caller who may see everything.
pub fn superadmin() -> Caller {
    Caller {
        user: UserId::random(),
        email: "bench@lab.invalid".into(),
        role: Role::Superadmin,
        domain: "default".into(),
        access_key: "AKIABENCH".into(),
        origin: Origin::default(),
    }
}

/// Opens the audit log of a data directory.
pub fn audit(store: &Store) -> Audit {
    Audit::load(store, Clock::system(), Retention::default()).unwrap()
}

/// Opens the catalog of a data directory.
pub fn open(directory: &Path) -> (Store, Catalog) {
    let store = Store::open(directory).expect("a data directory");
    let tenants = Tenants::load(&store, jiff::Timestamp::UNIX_EPOCH).expect("tenants");
    let audit = audit(&store);
    let fleet = Fleet::load(&store, Clock::system(), audit.clone(), tenants.clone()).expect("a fleet");
    let catalog = Catalog::load(&store, tenants, Arc::new(fleet), audit).expect("a catalog");
    (store, catalog)
}

/// Puts this many images with 20 labels each into a data directory; no two have the same config.
pub async fn fill(directory: &Path, images: usize) {
    let (_, catalog) = open(directory);
    catalog.add_registry(&superadmin(), HOST, RegistryChange::default()).await.expect("a registry");
    let repositories: Vec<usize> = (0..images.div_ceil(TAGS)).collect();
    for some in repositories.chunks(AT_ONCE) {
        let (writing, some) = (catalog.clone(), some.to_vec());
        let write = catalog.write(move |w| {
            let registry = writing.find_registry(HOST)?;
            for number in some {
                let name = format!("stable/python-tensorflow-{number:04}");
                let mut record = RepositoryRecord::default();
                let (mut rows, mut manifests, mut tags) = (Vec::new(), Vec::new(), BTreeMap::new());
                for place in (number * TAGS..images).take(TAGS) {
                    let (image, config) = image(&name, place);
                    let (config_digest, size_bytes) = (image.digest.clone(), image.size_bytes);
                    let layer_sizes = vec![size_bytes / LAYERS as u64; LAYERS];
                    let manifest = ManifestRecord::Image { config: config_digest, size_bytes, layer_sizes };
                    manifests.push((image.manifest.clone(), manifest));
                    tags.insert(image.tag.clone(), TagRecord { digest: image.target.clone() });
                    rows.push((image, Arc::new(config)));
                }
                record.tags = tags;
                writing.put_repository(w, &registry, &name, &record)?;
                writing.put_content(w, &registry, &manifests, &[])?;
                writing.put_images(w, rows)?;
            }
            Ok(())
        });
        write.await.expect("images");
    }
}

fn image(name: &str, number: usize) -> (ImageRecord, ConfigRecord) {
    let manifest = Digest::sha256_of(format!("manifest {number}").as_bytes());
    let record = ImageRecord {
        registry: HOST.into(),
        name: name.into(),
        tag: format!("2.{}-py39-ubuntu20.04-cuda11.3", number % TAGS),
        architecture: "x86_64".into(),
        digest: Digest::sha256_of(format!("config {number}").as_bytes()),
        target: manifest.clone(),
        manifest,
        size_bytes: 4_000_000_000 + number as u64,
        first_seen: Seconds::default(),
        changed: Seconds::default(),
    };
    let config = ConfigRecord {
        architecture: "x86_64".into(),
        os: "linux".into(),
        created: Some("2024-01-01T00:00:00Z".into()),
        labels: labels(number),
        diff_ids: (0..LAYERS).flat_map(|layer| layer_id(number, layer)).collect(),
    };
    (record, config)
}

/// The first half of the layers belongs to a base image, the rest to the image itself.
fn layer_id(number: usize, layer: usize) -> [u8; 32] {
    let own = if layer < LAYERS / 2 { number % TAGS } else { number };
    Digest::sha256_of(format!("layer {layer} of {own}").as_bytes()).sha256().expect("a SHA-256 digest")
}

/// The labels of a Backend.AI image, and the labels that build tools add.
fn labels(number: usize) -> Labels {
    let revision = Digest::sha256_of(&number.to_le_bytes());
    let revision = &revision.hex()[..40];
    let version = format!("2.{number}");
    let labels = [
        ("ai.backend.accelerators", "cuda"),
        ("ai.backend.base-distro", "ubuntu20.04"),
        ("ai.backend.envs.corecount", "OPENBLAS_NUM_THREADS,OMP_NUM_THREADS,NPROC"),
        ("ai.backend.features", "batch query uid-match user-input"),
        ("ai.backend.kernelspec", "1"),
        ("ai.backend.resource.min.cpu", "1"),
        ("ai.backend.resource.min.cuda.device", "1"),
        ("ai.backend.resource.min.mem", "64m"),
        ("ai.backend.role", "COMPUTE"),
        ("ai.backend.runtime-path", "/usr/bin/python3"),
        ("ai.backend.runtime-type", "python"),
        ("ai.backend.service-ports", "ipython:pty:3000,jupyter:http:8081,jupyterlab:http:8090"),
        ("maintainer", "containers@lab.invalid"),
        ("org.opencontainers.image.created", "2024-01-01T00:00:00Z"),
        ("org.opencontainers.image.licenses", "Apache-2.0"),
        ("org.opencontainers.image.revision", revision),
        ("org.opencontainers.image.source", "https://git.lab.invalid/kernels/python"),
        ("org.opencontainers.image.title", "TensorFlow \"nightly\""),
        ("org.opencontainers.image.vendor", "The lab"),
        ("org.opencontainers.image.version", &version),
    ];
    assert_eq!(labels.len(), 20);
    labels.into_iter().collect()
}
