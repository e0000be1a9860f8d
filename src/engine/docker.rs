//! A client of Docker Engine by its HTTP API, up to version 1.53; and of Podman, which offers the same API and
//! identifies itself in a header.
//!
//! bollard provides the calls and parses their answers. The connections are our own ([`dial`]), and so are pulls,
//! events and disk usage: they need lines of bounded length, credentials in the encoding that Docker reads (base64 for
//! URLs) and a sum that bollard's model leaves out.

mod dial;
mod fault;
mod lines;
mod podman;
mod progress;
mod relayed;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod uses;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use bollard::models::{ImageDeleteResponseItem, SystemInfo};
use bollard::{BollardRequest, ClientVersion, body_full, errors::Error, query_parameters as query};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http_body_util::{BodyExt as _, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::{arch, digest::Digest};
use crate::engine::{
    About, Change, Disk, Engine, EngineKind,
    address::EngineUrl,
    docker::{
        dial::Dial,
        fault::{broken, failed, refused},
        lines::Lines,
        progress::Meter,
        store::Store,
        uses::Lately,
        wire::Usage,
    },
    fault::{Class, Fault},
    image::{Held, Removal, Uses},
    name,
    pull::{Credentials, Progress, Pull, Pulled},
    room,
};

/// The largest answer read that is not a stream, in bytes. 10,000 images with long names and labels take about 20 MiB.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// The most bytes read of the answer to a failed request.
const MAX_REFUSAL: usize = 64 * 1024;
/// The newest minor version of API 1 that this program can read.
const NEWEST: usize = 53;
/// How far back events are requested at first, in seconds. Docker answers a little before it listens; one second of the
/// past closes that gap, and one more allows for differences between the clocks.
const OVERLAP: i64 = 2;
/// The most container names in an answer.
const MAX_CONTAINERS: usize = 20;

/// How long an engine may take. Tests set shorter times.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the answer to any request that is not a stream.
    pub answer: Duration,
    /// For answers that take the engine some work: disk usage, for which Docker walks through all its volumes, and its
    /// information about itself, for which Podman asks the package manager which packages its helpers belong to.
    pub gather: Duration,
    /// For the next line of a pull, before we ask whether the engine is still alive.
    pub quiet: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(20),
            gather: Duration::from_mins(3),
            quiet: Duration::from_secs(30),
        }
    }
}

/// A client of Docker Engine or Podman.
pub struct Docker {
    dial: Arc<Dial>,
    patience: Patience,
    /// What the engine said in its last answer to [`Docker::greet`].
    met: Mutex<Option<Met>>,
    /// How it keeps images, once it was asked.
    store: Mutex<Option<Store>>,
    /// What each image of the containerd store has, for engines that say so only of one image at a time.
    parts: store::Parts,
    /// The images of containers that its events told of.
    lately: Arc<Lately>,
}

/// What an engine says about itself in its headers.
#[derive(Debug, Clone, Copy)]
struct Met {
    /// The newest minor version of API 1 that both sides know.
    minor: usize,
    kind: EngineKind,
}

impl Docker {
    /// A client for the engine at this address. It does not connect yet: the engine may come later, go away and return.
    ///
    /// # Errors
    /// Certificates that can't be used.
    pub fn new(url: &EngineUrl) -> Result<Self, Fault> {
        Ok(Self {
            dial: Arc::new(Dial::new(url)?),
            patience: Patience::default(),
            met: Mutex::new(None),
            store: Mutex::new(None),
            parts: store::Parts::default(),
            lately: Arc::default(),
        })
    }

    /// This client with other deadlines, for tests.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Asks whether the engine is there, which kind it is, and which version of the API both sides know.
    async fn greet(&self) -> Result<Met, Fault> {
        let request = request(Method::GET, "/_ping")?;
        let answer = self.send("ping", request, MAX_ANSWER).await?;
        let version = answer.headers().get("api-version").and_then(|version| version.to_str().ok());
        let minor = version.and_then(|v| v.strip_prefix("1.")).and_then(|minor| minor.parse().ok());
        let Some(minor) = minor.filter(|&minor: &usize| minor > 0) else {
            return Err(Fault::new(Class::Other, "what answers there is neither Docker Engine nor Podman"));
        };
        let met = Met { minor: minor.min(NEWEST), kind: podman::kind(answer.headers()) };
        *self.met.lock() = Some(met);
        Ok(met)
    }

    async fn met(&self) -> Result<Met, Fault> {
        let known = *self.met.lock();
        match known {
            Some(met) => Ok(met),
            None => self.greet().await,
        }
    }

    async fn common_version(&self) -> Result<usize, Fault> {
        Ok(self.met().await?.minor)
    }

    /// Makes a call from bollard over our own connection.
    async fn call<T, F>(
        &self,
        doing: &str,
        call: impl FnOnce(bollard::Docker) -> F + Send,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        self.call_or_error(doing, call).await?.map_err(|error| failed(&error))
    }

    /// Makes a call from bollard; a refusal by the engine is returned as an answer, not a fault.
    async fn call_or_error<T, F>(
        &self,
        doing: &str,
        call: impl FnOnce(bollard::Docker) -> F + Send,
    ) -> Result<Result<T, Error>, Fault>
    where
        F: Future<Output = Result<T, Error>> + Send,
    {
        let minor = self.common_version().await?;
        let version = ClientVersion { major_version: 1, minor_version: minor };
        let dial = Arc::clone(&self.dial);
        let transport = move |mut request: BollardRequest| {
            let dial = Arc::clone(&dial);
            async move {
                // bollard tries to put the version into the path, but loses it there.
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                if !path.starts_with("/v1.") {
                    *request.uri_mut() = format!("/v1.{minor}{path}").parse()?;
                }
                dial.send(request, MAX_ANSWER).await
            }
        };
        let limit = self.patience.answer;
        // Its own deadline covers the head of the answer only, so ours surrounds it and bollard's never fires first.
        let seconds = limit.as_secs().saturating_add(1);
        let client = bollard::Docker::connect_with_custom_transport(
            transport,
            Some("http://engine"),
            seconds,
            &version,
        )
        .map_err(|error| failed(&error))?;
        timeout(limit, call(client)).await.map_err(|_| Fault::silent(doing, limit))
    }

    /// Sends a request of our own and waits for the head of the answer; a refusal is a fault.
    async fn send(
        &self,
        doing: &str,
        request: BollardRequest,
        most: u64,
    ) -> Result<Response<Incoming>, Fault> {
        let limit = self.patience.answer;
        let answer = timeout(limit, self.dial.send(request, most));
        accept(answer.await.map_err(|_| Fault::silent(doing, limit))?, limit).await
    }

    /// Reads the whole answer to a request of our own.
    async fn get<T: DeserializeOwned>(&self, path: &str, limit: Duration) -> Result<T, Fault> {
        let found = self.get_if_there(path, limit).await?;
        found.ok_or_else(|| Fault::new(Class::Other, format!("the engine has no {path}")))
    }

    /// Reads the whole answer to a request of our own; `None` if what is asked for is not there.
    async fn get_if_there<T: DeserializeOwned>(
        &self,
        path: &str,
        limit: Duration,
    ) -> Result<Option<T>, Fault> {
        let path = format!("/v1.{}{path}", self.common_version().await?);
        let reading = async {
            let answer = self.dial.send(request(Method::GET, &path)?, MAX_ANSWER).await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::NOT_FOUND) {
                return Ok(None);
            }
            let body = accept(answer, limit).await?.into_body();
            let bytes = body.collect().await.map_err(|error| broken(&Error::from(error)))?.to_bytes();
            serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(&Error::from(error)))
        };
        timeout(limit, reading).await.map_err(|_| Fault::silent(&path, limit))?
    }

    /// The image of this name or ID in the engine's words, if it is there.
    async fn inspect(&self, reference: &str) -> Result<Option<wire::Image>, Fault> {
        let Some(name) = name::askable(reference) else { return Ok(None) };
        let path = format!("/images/{name}/json{}", self.store().await?.query());
        self.get_if_there(&path, self.patience.answer).await
    }

    async fn info(&self) -> Result<SystemInfo, Fault> {
        self.get("/info", self.patience.gather).await
    }

    /// Has the engine pull from this repository, and reads its messages to the end.
    async fn fetch(
        &self,
        pull: &Pull,
        repository: &str,
        meter: &mut Meter,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), Fault> {
        let query = create_query(pull, repository);
        let path = format!("/v1.{}/images/create?{query}", self.common_version().await?);
        let mut request = request(Method::POST, &path)?;
        if let Some(credentials) = pull.credentials.as_ref().filter(|_| repository == pull.repository) {
            authorize(&mut request, credentials, repository)?;
        }
        let answer = self.patiently(self.dial.send(request, u64::MAX)).await?;
        let mut lines = Lines::new(accept(answer, self.patience.answer).await?.into_body());
        while let Some(line) = self.patiently(lines.next()).await?? {
            if let Some(now) = meter.take(line)? {
                progress(now);
            }
        }
        Ok(())
    }

    /// Waits as long as the engine is alive: a slow registry makes it silent, and so does its death.
    async fn patiently<T>(&self, wait: impl Future<Output = T> + Send) -> Result<T, Fault> {
        tokio::pin!(wait);
        loop {
            match timeout(self.patience.quiet, &mut wait).await {
                Ok(outcome) => return Ok(outcome),
                Err(_) => self.greet().await?,
            };
        }
    }

    /// Does a whole pull: checks whether it is needed, pulls, and checks that the image is there.
    async fn bring(&self, pull: &Pull, progress: &(dyn Fn(Progress) + Send + Sync)) -> Result<Pulled, Fault> {
        let name = pull.canonical()?;
        let mut meter = Meter::new(&pull.layers).without(&pull.config);
        if let Some(held) = self.find(&name).await?.filter(|held| pull.expects(held)) {
            progress(meter.finish("already there"));
            return Ok(Pulled::new(held, false));
        }
        let there = self.under_another_name(pull).await?;
        let fetched = there.is_none();
        if let Some(id) = there {
            self.tag(id.as_str(), pull).await?;
        } else if let (Some(via), Some(manifest)) = (&pull.via, &pull.manifest) {
            self.fetch_via(pull, via, manifest, &mut meter, progress).await?;
        } else {
            self.fetch(pull, &pull.repository, &mut meter, progress).await?;
            if let Some(manifest) = &pull.manifest {
                let by_digest = format!("{}@{manifest}", pull.repository);
                self.tag(&by_digest, pull).await?;
                if self.met().await?.kind == EngineKind::Podman {
                    // It was not there before the pull, so no other client uses it.
                    self.forget_name(&by_digest).await?;
                }
            }
        }
        let held = pull.proven(self.find(&name).await?)?;
        progress(meter.finish("done"));
        Ok(Pulled::new(held, fetched))
    }

    /// The ID of the wanted image, if the engine has it already.
    async fn under_another_name(&self, pull: &Pull) -> Result<Option<Digest>, Fault> {
        let ids = match self.store().await? {
            Store::Own => [Some(&pull.config), None],
            Store::Containerd => [pull.manifest.as_ref(), pull.index.as_ref()],
        };
        for id in ids.into_iter().flatten() {
            let found = self.find(id.as_str()).await?;
            if let Some(held) = found.filter(|held| held.digest == *id && pull.expects(held)) {
                return Ok(Some(held.digest));
            }
        }
        Ok(None)
    }

    async fn tag(&self, image: &str, pull: &Pull) -> Result<(), Fault> {
        let as_what = query::TagImageOptionsBuilder::new().repo(&pull.repository).tag(&pull.tag).build();
        self.call("tag", |docker| async move { docker.tag_image(image, Some(as_what)).await }).await
    }

    /// Removes a name by digest, such as a pull leaves. For Podman it is a name like any other, and an image that has it
    /// outlives its last tag.
    async fn forget_name(&self, by_digest: &str) -> Result<(), Fault> {
        match self.delete(by_digest).await? {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Removes what is left of an image once its last tag is gone: its names by digest in the tag's repository. Returns
    /// whether the image is gone.
    async fn forget_digests(&self, id: &Digest, name: &str) -> Result<bool, Fault> {
        let Some(rest) = self.inspect(id.as_str()).await? else { return Ok(true) };
        let is_named = rest.held().is_none_or(|held| !held.names.is_empty());
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        if is_named {
            return Ok(false);
        }
        for by_digest in rest.names_by_digest(repository) {
            match self.forget_name(by_digest).await {
                // The tag is gone already, so what is left stays.
                Err(fault) if fault.class == Class::InUse => return Ok(false),
                forgotten => forgotten?,
            }
        }
        Ok(self.inspect(id.as_str()).await?.is_none())
    }

    /// Asks for a name to be removed, never by force. A refusal is returned as an answer.
    async fn delete(&self, name: &str) -> Result<Result<Vec<ImageDeleteResponseItem>, Error>, Fault> {
        let gently = query::RemoveImageOptionsBuilder::new().force(false).noprune(false).build();
        self.call_or_error(
            "remove",
            |docker| async move { docker.remove_image(name, Some(gently), None).await },
        )
        .await
    }

    /// The names of the containers made from an image, running or not.
    async fn users(&self, image: &Digest) -> Result<Vec<String>, Fault> {
        // Podman finds nothing by an ID with its algorithm in front; Docker accepts both forms.
        let filters = HashMap::from([("ancestor", vec![image.hex()])]);
        let which = query::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let containers = self
            .call("containers", |docker| async move { docker.list_containers(Some(which)).await })
            .await?;
        Ok(containers.into_iter().take(MAX_CONTAINERS).filter_map(wire::container_name).collect())
    }
}

#[async_trait]
impl Engine for Docker {
    async fn about(&self) -> Result<About, Fault> {
        // It may be another engine, or a newer version, since the last time.
        let kind = self.greet().await?.kind;
        let info = self.info().await?;
        *self.store.lock() = Some(Store::of(&info));
        let labels = info.labels.unwrap_or_default().into_iter().map(|label| match label.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None => (label, String::new()),
        });
        Ok(About {
            kind,
            // Podman makes up another ID for each answer.
            id: info.id.filter(|id| !id.is_empty() && kind != EngineKind::Podman),
            hostname: info.name.unwrap_or_default(),
            version: info.server_version.unwrap_or_default(),
            os: info.os_type.unwrap_or_default(),
            architecture: arch::normalize(&info.architecture.unwrap_or_default(), None),
            labels: labels.collect::<BTreeMap<_, _>>(),
        })
    }

    async fn images(&self) -> Result<Vec<Held>, Fault> {
        let store = self.store().await?;
        let path = format!("/images/json{}", store.query());
        let images: Vec<wire::Image> = self.get(&path, self.patience.answer).await?;
        if store == Store::Own || images.iter().all(wire::Image::tells_parts) {
            return Ok(images.iter().filter_map(|image| store.held(image)).collect());
        }
        self.with_parts(images).await
    }

    async fn find(&self, reference: &str) -> Result<Option<Held>, Fault> {
        let Some(image) = self.inspect(reference).await? else { return Ok(None) };
        Ok(self.store().await?.held(&image))
    }

    async fn pull(
        &self,
        pull: &Pull,
        progress: &(dyn Fn(Progress) + Send + Sync),
        stop: &CancellationToken,
    ) -> Result<Pulled, Fault> {
        // Dropping the request closes its connection, and with that Docker cancels the pull.
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            pulled = self.bring(pull, progress) => return pulled,
        }
        self.leave_relay(pull).await;
        Err(Fault::stopped())
    }

    async fn remove(&self, reference: &str) -> Result<Removal, Fault> {
        let Some(held) = self.find(reference).await? else { return Ok(Removal::Absent) };
        let Some(name) = name::askable(reference) else { return Ok(Removal::Absent) };
        let is_last = held.names.iter().all(|known| *known == name);
        let is_podman = self.met().await?.kind == EngineKind::Podman;
        if is_podman && held.names.is_empty() && !held.manifests.is_empty() {
            // It has a name by digest, which only a person can have given it: wharf's own go with each pull.
            return Ok(Removal::Untagged);
        }
        if is_last && (is_podman || self.store().await? == Store::Containerd) {
            // As long as the image has a name by digest, these take its last tag away from under a container (of
            // Docker, 24 does).
            let containers = self.users(&held.digest).await?;
            if !containers.is_empty() {
                return Ok(Removal::InUse { containers });
            }
        }
        match self.delete(&name).await? {
            Ok(steps) => {
                let mut deleted = steps.iter().filter_map(|step| name::image_id(step.deleted.as_deref()?));
                let is_gone =
                    deleted.any(|id| id == held.digest) || self.forget_digests(&held.digest, &name).await?;
                // Docker doesn't say how much room became free, and layers may be shared.
                Ok(if is_gone { Removal::Removed { freed_bytes: None } } else { Removal::Untagged })
            }
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(Removal::Absent),
            Err(error) => match failed(&error) {
                Fault { class: Class::InUse, .. } => {
                    Ok(Removal::InUse { containers: self.users(&held.digest).await.unwrap_or_default() })
                }
                fault => Err(fault),
            },
        }
    }

    async fn uses(&self, held: &[Held]) -> Result<Option<Uses>, Fault> {
        let all = query::ListContainersOptionsBuilder::new().all(true).build();
        let containers =
            self.call("containers", |docker| async move { docker.list_containers(Some(all)).await }).await?;
        let lately = self.lately.images();
        let now = containers.iter().map(|container| {
            [&container.image_id, &container.image].into_iter().flatten().map(String::as_str)
        });
        Ok(Some(Uses::of(held, now, lately.iter().map(String::as_str))))
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Change, Fault>>, Fault> {
        let since = jiff::Timestamp::now().as_second().saturating_sub(OVERLAP);
        let filters = json!({"type": ["image", "container"]}).to_string();
        let ask = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("since", &since.to_string())
            .append_pair("filters", &filters)
            .finish();
        let path = format!("/v1.{}/events?{ask}", self.common_version().await?);
        let answer = self.send("events", request(Method::GET, &path)?, u64::MAX).await?;
        let following = (Lines::new(answer.into_body()), Arc::clone(&self.lately));
        let events = stream::unfold(Some(following), async |following| {
            let (mut lines, lately) = following?;
            loop {
                match lines.next::<wire::Said>().await {
                    Ok(Some(said)) => {
                        if said.is_of_images() {
                            return Some((Ok(Change::Images), Some((lines, lately))));
                        }
                        if let Some(image) = said.image_of_container() {
                            lately.note(image);
                            return Some((Ok(Change::Containers), Some((lines, lately))));
                        }
                    }
                    Ok(None) => {
                        return Some((
                            Err(Fault::new(Class::EngineGone, "the engine ended its events")),
                            None,
                        ));
                    }
                    Err(fault) => return Some((Err(fault), None)),
                }
            }
        });
        Ok(events.boxed())
    }

    async fn disk(&self) -> Result<Disk, Fault> {
        let info = self.info().await?;
        let usage: Usage = self.get("/system/df", self.patience.gather).await?;
        let room = match info.docker_root_dir {
            Some(folder) if self.dial.is_local() => room::of(folder.into()).await,
            _ => None,
        };
        Ok(Disk {
            free_bytes: room.map(|(free, _)| free),
            total_bytes: room.map(|(_, total)| total),
            images_bytes: usage.images_bytes(),
        })
    }
}

fn create_query(pull: &Pull, repository: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("fromImage", repository);
    query.append_pair("tag", pull.manifest.as_ref().map_or(pull.tag.as_str(), Digest::as_str));
    if let Some(platform) = &pull.platform {
        query.append_pair("platform", platform);
    }
    query.finish()
}

fn request(method: Method, path: &str) -> Result<BollardRequest, Fault> {
    Request::builder()
        .method(method)
        .uri(path)
        .body(body_full(Bytes::new()))
        .map_err(|error| Fault::new(Class::Other, error.to_string()))
}

/// Puts credentials where Docker reads them. Docker reads only base64 for URLs; with the other kind it silently uses no
/// credentials at all if the text has a `+` or a `/`.
fn authorize(request: &mut BollardRequest, credentials: &Credentials, repository: &str) -> Result<(), Fault> {
    let server = repository.split('/').next().unwrap_or_default();
    let header = json!({
        "username": credentials.username,
        "password": credentials.password.expose(),
        "serveraddress": server,
    });
    let mut header: hyper::header::HeaderValue = BASE64_URL_SAFE
        .encode(header.to_string())
        .parse()
        .map_err(|_| Fault::new(Class::Other, "these credentials fit into no header"))?;
    header.set_sensitive(true);
    request.headers_mut().insert("x-registry-auth", header);
    Ok(())
}

/// Returns a successful answer; otherwise reads the engine's reason and returns it as a fault.
async fn accept(
    answer: Result<Response<Incoming>, Error>,
    limit: Duration,
) -> Result<Response<Incoming>, Fault> {
    let answer = answer.map_err(|error| broken(&error))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let body = timeout(limit, Limited::new(answer.into_body(), MAX_REFUSAL).collect()).await;
    let bytes = body.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let said = serde_json::from_slice::<wire::Refusal>(&bytes)
        .map_or_else(|_| String::from_utf8_lossy(&bytes).into_owned(), |refusal| refusal.message);
    Err(refused(status.as_u16(), &said))
}
