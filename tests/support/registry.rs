//! A real registry (Debian's `docker-registry`), and the pushing and deleting that tests do in it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::api::http_client;
use super::image::{Built, Image, sha256};
use super::missing;
use super::process::{Process, on_path, read};
use super::tokens::{ISSUER, SERVICE, TokenServer};
use super::wait::PATIENCE;

pub const USER: &str = "scanner";
pub const PASSWORD: &str = "planted-password-of-the-registry";

/// Uploads in flight during [`RealRegistry::push_all`].
const AT_ONCE: usize = 8;

enum Access {
    Open,
    Password,
    Tokens(TokenServer),
}

/// The upload of a blob into a repository, by the first task that needs it.
type Upload = Arc<OnceCell<()>>;

/// A running registry with a store of its own.
pub struct RealRegistry {
    folder: TempDir,
    process: Option<Process>,
    host: String,
    access: Access,
    http: reqwest::Client,
    uploaded: Mutex<HashMap<(String, String), Upload>>,
}

impl RealRegistry {
    /// Starts one that everyone may read and write; `None` if `docker-registry` is missing (see [`missing`]).
    pub async fn open() -> Option<Self> {
        Self::start(async |_| Access::Open).await
    }

    /// Starts one with Basic authentication as [`USER`] with [`PASSWORD`].
    pub async fn with_password() -> Option<Self> {
        if !on_path("htpasswd") {
            missing("htpasswd", "apt-get install apache2-utils");
            return None;
        }
        Self::start(async |folder| {
            let made = Command::new("htpasswd").args(["-Bbn", "-C", "4", USER, PASSWORD]).output();
            let line = made.expect("htpasswd runs").stdout;
            std::fs::write(folder.path().join("htpasswd"), line).expect("a password file");
            Access::Password
        })
        .await
    }

    /// Starts one with Bearer tokens, which a [`TokenServer`] gives to [`USER`] with [`PASSWORD`].
    pub async fn with_tokens() -> Option<Self> {
        if !on_path("openssl") {
            missing("openssl", "apt-get install openssl");
            return None;
        }
        Self::start(async |folder| Access::Tokens(TokenServer::start(folder.path(), USER, PASSWORD).await))
            .await
    }

    async fn start(prepare: impl AsyncFnOnce(&TempDir) -> Access) -> Option<Self> {
        if !on_path("docker-registry") {
            missing("docker-registry", "apt-get install docker-registry");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("wharf-registry-").tempdir().expect("a directory");
        let access = prepare(&folder).await;
        let http = {
            // Only installs the TLS provider, in one place; this client keeps its connections.
            drop(http_client());
            let client = reqwest::Client::builder().no_proxy().http1_only().pool_max_idle_per_host(AT_ONCE);
            client.build().expect("an HTTP client")
        };
        let mut registry = Self {
            folder,
            process: None,
            host: "127.0.0.1:0".to_owned(),
            access,
            http,
            uploaded: Mutex::default(),
        };
        registry.resume().await;
        Some(registry)
    }

    /// Returns `127.0.0.1:PORT`, which is also its name in image references.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Returns user and password, if it asks for them.
    pub fn credentials(&self) -> Option<(&'static str, &'static str)> {
        (!matches!(self.access, Access::Open)).then_some((USER, PASSWORD))
    }

    /// Returns the token service, in token mode.
    pub fn tokens(&self) -> &TokenServer {
        match &self.access {
            Access::Tokens(tokens) => tokens,
            Access::Open | Access::Password => panic!("this registry uses no tokens"),
        }
    }

    /// Stops it; its store stays.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again, after [`stop`](Self::stop) under the same address.
    pub async fn resume(&mut self) {
        let (config, log) = (self.folder.path().join("registry.yml"), self.folder.path().join("log"));
        std::fs::write(&config, self.config()).expect("a configuration file");
        let said = read(&log).len();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).env_clear().env("OTEL_TRACES_EXPORTER", "none");
        let mut start = || Process::spawn(&mut command, &log, &log).expect("docker-registry runs");
        let (mut process, started) = (start(), Instant::now());
        let host = loop {
            let mut ended = process.ended();
            let fresh = read(&log).split_off(said);
            // Another test's outgoing connection may hold the port for a moment.
            if ended.is_some() && fresh.contains("address already in use") {
                (process, ended) = (start(), None);
            }
            if let Some(rest) = fresh.split("msg=\"listening on ").nth(1)
                && let Some((host, _)) = rest.split_once('"')
            {
                break host.to_owned();
            }
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "docker-registry:\n{fresh}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        self.host = host;
        self.process = Some(process);
    }

    fn config(&self) -> String {
        let folder = self.folder.path().display();
        let auth = match &self.access {
            Access::Open => String::new(),
            Access::Password => format!("auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n"),
            Access::Tokens(tokens) => format!(
                "auth: {{token: {{realm: \"{}\", service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {}}}}}\n",
                tokens.realm(),
                tokens.certificate().display()
            ),
        };
        format!(
            "version: 0.1\n\
             log: {{level: info, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {folder}/store}}, delete: {{enabled: true}}}}\n\
             http: {{addr: \"{}\", secret: test}}\n{auth}",
            self.host
        )
    }

    /// Uploads one image.
    pub async fn push(&self, image: &Image) -> Built {
        let built = image.build();
        self.upload(&built).await;
        built
    }

    /// Uploads many images, several at a time, in any order.
    pub async fn push_all(&self, images: impl IntoIterator<Item = Image>) -> Vec<Built> {
        stream::iter(images)
            .map(|image| async move { self.push(&image).await })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    /// Writes many images straight into the store's files, where the registry finds them: ten times as fast as
    /// uploading.
    pub fn stock(&self, images: impl IntoIterator<Item = Image>) -> Vec<Built> {
        let images: Vec<Built> = images.into_iter().map(|image| image.build()).collect();
        for built in &images {
            for blob in &built.blobs {
                let digest = sha256(blob);
                let key = (built.repository.clone(), digest.clone());
                let there = Arc::new(OnceCell::new_with(Some(())));
                if self.uploaded.lock().insert(key, there).is_none() {
                    self.store_blob(&digest, blob);
                    self.store_link(&built.repository, &format!("_layers/{}", in_path(&digest)), &digest);
                }
            }
            for manifest in &built.manifests {
                let digest = &manifest.digest;
                self.store_blob(digest, &manifest.bytes);
                let revision = format!("_manifests/revisions/{}", in_path(digest));
                self.store_link(&built.repository, &revision, digest);
            }
            let (top, tag) = (built.digest(), format!("_manifests/tags/{}", built.tag));
            self.store_link(&built.repository, &format!("{tag}/current"), top);
            self.store_link(&built.repository, &format!("{tag}/index/{}", in_path(top)), top);
        }
        images
    }

    fn store_blob(&self, digest: &str, bytes: &[u8]) {
        let hex = digest.trim_start_matches("sha256:");
        let place =
            self.folder.path().join("store/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex);
        std::fs::create_dir_all(&place).expect("a folder in the store");
        std::fs::write(place.join("data"), bytes).expect("a blob in the store");
    }

    fn store_link(&self, repository: &str, place: &str, digest: &str) {
        let place = self.repository(repository).join(place);
        std::fs::create_dir_all(&place).expect("a folder in the store");
        std::fs::write(place.join("link"), digest).expect("a link in the store");
    }

    /// Uploads a built image.
    pub async fn upload(&self, built: &Built) {
        for blob in &built.blobs {
            self.push_blob(&built.repository, blob.clone()).await;
        }
        let last = built.manifests.len() - 1;
        for (position, manifest) in built.manifests.iter().enumerate() {
            let reference = if position == last { &built.tag } else { &manifest.digest };
            let path = format!("{}/manifests/{reference}", built.repository);
            let put = self.request(Method::PUT, &built.repository, &path);
            let put = put.header("content-type", &manifest.media_type).body(manifest.bytes.clone());
            expect(put, StatusCode::CREATED).await;
        }
    }

    /// Points more tags at a pushed image.
    pub async fn tag(&self, built: &Built, tags: &[&str]) {
        let top = built.manifests.last().expect("an image has a manifest");
        for tag in tags {
            let put = self.request(
                Method::PUT,
                &built.repository,
                &format!("{}/manifests/{tag}", built.repository),
            );
            let put = put.header("content-type", &top.media_type).body(top.bytes.clone());
            expect(put, StatusCode::CREATED).await;
        }
    }

    /// Uploads a blob once, even if several images that have it are pushed at the same time: while the registry
    /// writes a blob again, it has nothing complete under its digest.
    async fn push_blob(&self, repository: &str, blob: bytes::Bytes) {
        let digest = sha256(&blob);
        let key = (repository.to_owned(), digest.clone());
        let once = Arc::clone(self.uploaded.lock().entry(key).or_default());
        once.get_or_init(|| self.send_blob(repository, &digest, blob)).await;
    }

    async fn send_blob(&self, repository: &str, digest: &str, blob: bytes::Bytes) {
        let post = self.request(Method::POST, repository, &format!("{repository}/blobs/uploads/"));
        let begun = expect(post, StatusCode::ACCEPTED).await;
        let place = begun.headers()["location"].to_str().expect("a readable Location").to_owned();
        // The registry uses the host of the request in the URL; only the path matters here.
        let place = place.split_once("/v2/").expect("a path below /v2/").1.to_owned();
        let put = self.request(Method::PUT, repository, &format!("{place}&digest={digest}"));
        expect(put.body(blob), StatusCode::CREATED).await;
    }

    /// Removes a tag and leaves its manifest: the distribution API of this release has no such call.
    pub fn delete_tag(&self, repository: &str, tag: &str) {
        let path = self.repository(repository).join("_manifests/tags").join(tag);
        std::fs::remove_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Deletes a manifest, with every tag that points at it.
    pub async fn delete_manifest(&self, repository: &str, digest: &str) {
        let delete = self.request(Method::DELETE, repository, &format!("{repository}/manifests/{digest}"));
        expect(delete, StatusCode::ACCEPTED).await;
    }

    /// Removes a whole repository from the store.
    pub fn delete_repository(&self, repository: &str) {
        let path = self.repository(repository);
        std::fs::remove_dir_all(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.uploaded.lock().retain(|(name, _), _| name != repository);
    }

    /// Returns the tags it lists (one page).
    pub async fn tags(&self, repository: &str) -> Vec<String> {
        let list = self.request(Method::GET, repository, &format!("{repository}/tags/list"));
        let list: serde_json::Value = expect(list, StatusCode::OK).await.json().await.expect("JSON");
        list["tags"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|tag| tag.as_str().map(str::to_owned))
            .collect()
    }

    fn repository(&self, repository: &str) -> PathBuf {
        self.folder.path().join("store/docker/registry/v2/repositories").join(repository)
    }

    /// Returns a request below `/v2/`, with the right to do anything in this repository.
    pub fn request(&self, method: Method, repository: &str, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/v2/{path}", self.url()));
        match &self.access {
            Access::Open => request,
            Access::Password => request.basic_auth(USER, Some(PASSWORD)),
            Access::Tokens(tokens) => {
                request.bearer_auth(tokens.mint(repository, &["pull", "push", "delete"]))
            }
        }
    }
}

/// Returns a digest as the store's folders spell it.
fn in_path(digest: &str) -> String {
    digest.replace(':', "/")
}

async fn expect(request: RequestBuilder, status: StatusCode) -> Response {
    let response = request.send().await.expect("the registry answers");
    let (got, url) = (response.status(), response.url().clone());
    if got == status {
        return response;
    }
    panic!("{url}: {got} instead of {status}: {}", response.text().await.unwrap_or_default());
}
