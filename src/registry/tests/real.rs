//! The client against CNCF distribution (`docker-registry` of Debian).

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::{Method, header::LOCATION};
use serde_json::json;

use crate::{
    base::digest::Digest,
    registry::{
        client::{Client, probe::Probe},
        config::parse_config,
        error::Reason,
        limits::ClientLimits,
        manifest::{Manifest, classify},
        manners::ProbeMode,
        tests::{ann, client, patient, remote},
        tls,
    },
};

const OCI_IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A registry process in a temporary directory; it ends when this is dropped.
struct Registry {
    process: Child,
    url: String,
    directory: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether the real registry is missing. If so these tests say so and pass, unless they must not.
fn is_missing() -> bool {
    let missing = Command::new("docker-registry").arg("--version").output().is_err();
    if missing {
        assert!(std::env::var_os("WHARF_REQUIRE_REAL").is_none(), "docker-registry is not installed");
        println!("skipped: docker-registry is not installed");
    }
    missing
}

impl Registry {
    fn start(auth: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("registry.yml");
        let data = directory.path().join("data");
        let auth = auth.replace("DIR", directory.path().to_str().unwrap());
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:0\n{auth}",
            data.display()
        );
        std::fs::write(&path, config).unwrap();
        if auth.contains("htpasswd") {
            let output = Command::new("htpasswd").args(["-Bbn", "ann", "hunter2"]).output().unwrap();
            std::fs::write(directory.path().join("htpasswd"), output.stdout).unwrap();
        }
        let mut process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening on ")?.1.split(['"', ',']).next()?.to_owned()))
            .expect("the registry says where it listens");
        // The log must be read to the end, else the registry blocks when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));
        Self { process, url: format!("http://{address}"), directory }
    }

    fn open() -> Self {
        Self::start("")
    }
}

/// Pushes images over the registry's own HTTP API.
struct Pusher {
    http: reqwest::Client,
    url: String,
    with_password: bool,
}

impl Pusher {
    fn new(registry: &Registry, with_password: bool) -> Self {
        let config = tls::client_config(Vec::new(), true, None).unwrap();
        let http = reqwest::Client::builder().tls_backend_preconfigured(config).no_proxy().build().unwrap();
        Self { http, url: registry.url.clone(), with_password }
    }

    async fn send(&self, method: Method, url: &str, media_type: &str, body: &[u8]) -> reqwest::Response {
        let mut request =
            self.http.request(method, url).header("content-type", media_type).body(body.to_vec());
        if self.with_password {
            request = request.basic_auth("ann", Some("hunter2"));
        }
        let response = request.send().await.unwrap();
        assert!(response.status().is_success(), "{url}: {}", response.status());
        response
    }

    async fn blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::sha256_of(bytes);
        let start = format!("{}/v2/{repository}/blobs/uploads/", self.url);
        let started = self.send(Method::POST, &start, "application/octet-stream", b"").await;
        let location = started.headers()[LOCATION].to_str().unwrap();
        let upload = format!("{location}&digest={digest}");
        self.send(Method::PUT, &upload, "application/octet-stream", bytes).await;
        digest
    }

    async fn manifest(&self, repository: &str, reference: &str, media_type: &str, body: &[u8]) -> Digest {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.url);
        self.send(Method::PUT, &url, media_type, body).await;
        Digest::sha256_of(body)
    }

    /// Pushes an image of a few hundred bytes, known by its digest.
    async fn image(&self, repository: &str, architecture: &str, label: &str) -> (Digest, usize) {
        let config = json!({
            "os": "linux", "architecture": architecture, "created": "2024-02-03T04:05:06Z",
            "config": {"Labels": {"ai.backend.role": label}}, "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = config.to_string().into_bytes();
        let layer = self.blob(repository, b"layer").await;
        let config_digest = self.blob(repository, &config).await;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_IMAGE,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest,
                "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": 5}],
        });
        let manifest = manifest.to_string().into_bytes();
        let digest = Digest::sha256_of(&manifest);
        self.manifest(repository, digest.as_str(), OCI_IMAGE, &manifest).await;
        (digest, manifest.len())
    }

    /// Pushes a multi-platform image under a tag.
    async fn index(&self, repository: &str, tag: &str, label: &str) -> Digest {
        let mut children = Vec::new();
        for architecture in ["amd64", "arm64"] {
            let (digest, size) = self.image(repository, architecture, label).await;
            children.push(json!({"mediaType": OCI_IMAGE, "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": architecture}}));
        }
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).to_string();
        self.manifest(repository, tag, OCI_INDEX, index.as_bytes()).await
    }
}

/// Reads one image the way a scan does.
async fn walk(client: &Client, repository: &str, tag: &str) -> Vec<(String, String)> {
    let top = client.manifest(repository, tag).await.unwrap();
    let Manifest::Index(children) = classify(&top.bytes).unwrap() else {
        panic!("{tag} is no index");
    };
    let mut found = Vec::new();
    for child in children {
        let fetched = client.manifest(repository, child.digest.as_str()).await.unwrap();
        assert_eq!(fetched.digest, child.digest);
        let Manifest::Image(image) = classify(&fetched.bytes).unwrap() else {
            panic!("{} is no image", child.digest);
        };
        assert_eq!(image.total_size, image.config.size + 5);
        let bytes = client.blob(repository, &image.config.digest, image.config.size, 1 << 20).await.unwrap();
        let config = parse_config(&bytes).unwrap();
        assert_eq!(config.created.unwrap().to_string(), "2024-02-03T04:05:06Z");
        found.push((config.architecture, config.labels["ai.backend.role"].clone()));
    }
    found
}

#[tokio::test]
async fn a_real_registry_is_read_from_catalog_to_labels() {
    if is_missing() {
        return;
    }
    let registry = Registry::open();
    let pusher = Pusher::new(&registry, false);
    for tag in ["1.0", "1.1", "latest"] {
        pusher.index("lab/python", tag, tag).await;
    }
    pusher.index("other", "x", "COMPUTE").await;
    let client = client(remote(&registry.url), patient());
    client.ping().await.unwrap();
    assert_eq!(client.repositories().await.unwrap().good, ["lab/python", "other"]);
    assert_eq!(sorted(client.tags("lab/python").await.unwrap().good), ["1.0", "1.1", "latest"]);
    let expected = ["amd64", "arm64"].map(|architecture| (architecture.to_owned(), "1.1".to_owned()));
    assert_eq!(walk(&client, "lab/python", "1.1").await, expected);
    let missing = client.manifest("lab/python", "nope").await.unwrap_err();
    assert_eq!(missing.reason, Reason::NotFound);
    assert_eq!(missing.to_string(), "cr.test: manifest of lab/python:nope: not found (404)");
    assert_eq!(client.tags("nope").await.unwrap_err().reason, Reason::NotFound);
}

#[tokio::test]
async fn a_real_registry_teaches_conditional_probes() {
    if is_missing() {
        return;
    }
    let registry = Registry::open();
    let pusher = Pusher::new(&registry, false);
    let old = pusher.index("a", "tag", "old").await;
    let client = client(remote(&registry.url), patient());
    assert_eq!(client.probe("a", "tag", &old).await.unwrap(), Probe::Unchanged);
    assert_eq!(client.probe_mode(), ProbeMode::Conditional);
    let new = pusher.index("a", "tag", "new").await;
    let Probe::Fetched(fetched) = client.probe("a", "tag", &old).await.unwrap() else {
        panic!("not fetched")
    };
    assert_eq!(fetched.digest, new);

    let mut by_head = remote(&registry.url);
    by_head.manners.probe = ProbeMode::Head;
    let by_head = self::client(by_head, patient());
    assert_eq!(by_head.probe("a", "tag", &new).await.unwrap(), Probe::Unchanged);
    assert_eq!(by_head.probe("a", "tag", &old).await.unwrap(), Probe::Moved(new));
}

/// Sorts tags: their order is up to the registry, and older registries have none.
fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}

#[tokio::test]
async fn a_real_registry_lists_all_its_tags() {
    if is_missing() {
        return;
    }
    let registry = Registry::open();
    let pusher = Pusher::new(&registry, false);
    let (digest, _) = pusher.image("a", "amd64", "x").await;
    let client = client(remote(&registry.url), patient());
    let manifest = client.manifest("a", digest.as_str()).await.unwrap();
    let expected: Vec<String> = (0..1001).map(|number| format!("t{number:04}")).collect();
    for (count, tag) in expected.iter().enumerate() {
        if count == 1000 {
            // Exactly one full page, which this registry sends without a link.
            assert_eq!(sorted(client.tags("a").await.unwrap().good), expected[..1000]);
        }
        pusher.manifest("a", tag, OCI_IMAGE, &manifest.bytes).await;
    }
    assert_eq!(sorted(client.tags("a").await.unwrap().good), expected);
}

#[tokio::test]
async fn a_real_registry_pages_its_catalog() {
    if is_missing() {
        return;
    }
    let registry = Registry::open();
    let expected: Vec<String> = (0..2345).map(|number| format!("lab/r{number:04}")).collect();
    for name in &expected {
        // This directory makes a name a repository in the registry's storage.
        let path = registry.directory.path().join("data/docker/registry/v2/repositories").join(name);
        std::fs::create_dir_all(path.join("_layers")).unwrap();
    }
    let client = client(remote(&registry.url), patient());
    assert_eq!(client.repositories().await.unwrap().good, expected);
}

#[tokio::test]
async fn a_real_registry_with_passwords_wants_the_right_one() {
    if is_missing() {
        return;
    }
    let registry = Registry::start("auth:\n  htpasswd:\n    realm: lab\n    path: DIR/htpasswd\n");
    Pusher::new(&registry, true).index("a", "tag", "secret").await;
    let with = |credentials| {
        let mut remote = remote(&registry.url);
        remote.credentials = credentials;
        Client::with_limits(
            remote,
            std::sync::Arc::new(crate::registry::tests::Internet),
            ClientLimits::default(),
        )
        .unwrap()
    };
    let known = with(Some(ann()));
    known.ping().await.unwrap();
    assert_eq!(walk(&known, "a", "tag").await.len(), 2);

    let mut wrong = ann();
    wrong.password = crate::base::secret::Secret::new("guess");
    let error = with(Some(wrong)).ping().await.unwrap_err();
    assert!(matches!(error.reason, Reason::Unauthorized(_)), "{error}");
    assert!(!error.to_string().contains("guess"), "{error}");
    assert!(matches!(with(None).tags("a").await.unwrap_err().reason, Reason::Unauthorized(_)));
}
