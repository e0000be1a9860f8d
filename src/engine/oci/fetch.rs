//! Fetches blobs from the registry to the disk: each once, for however many pulls, resuming where a transfer broke off.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout_at};

use crate::base::digest::Digest;
use crate::base::keyed::Keyed;
use crate::engine::{
    fault::{Class, Fault},
    oci::{
        layout::{Layout, broken},
        manifest::Blob,
        part::Part,
        throttle::Throttle,
    },
    source::{Flow, Source},
};

/// How many bytes are gathered before they are written: enough for fast writes, few enough to hold twice for each blob.
const BATCH: u64 = 512 * 1024;
/// The most pieces in a batch. An honest server sends some dozens; each keeps the buffer alive that it came in.
const PIECES: usize = 512;
/// How long to gather before writing a smaller batch: a slow line shows progress, and a kill loses little.
const LINGER: Duration = Duration::from_millis(500);
/// How many times in a row a flow may break off before the pull is given up. The caller of the pull tries again later.
const BREAKS: u32 = 4;
/// How many bytes a flow must bring so that its break does not count: then the line is bad, not the registry.
const HEADWAY: u64 = 1024 * 1024;
/// How many times wrong bytes may come before a pull is given up, whatever sources are left: the fault may be here.
const MOST_DOUBTS: u32 = 16;
/// The wait after the first break; each wait is longer than the one before.
const PAUSE: Duration = Duration::from_millis(250);

/// The transfer of one blob that some pulls want.
#[derive(Default)]
pub(crate) struct Flight {
    /// The pull that holds this fetches the blob.
    turn: Arc<Mutex<()>>,
    /// How many bytes are there, for the pulls that wait.
    there: watch::Sender<u64>,
}

/// The right to fetch a blob. The flight exists as long as some pull has the turn.
pub(crate) struct Turn {
    _turn: OwnedMutexGuard<()>,
    _flight: Arc<Flight>,
}

/// A callback about a blob that is being fetched: how many bytes are there, and whether it is in its place.
pub(crate) type Told<'a> = dyn Fn(&Blob, u64, bool) + Send + Sync + 'a;

/// One pull's way to fetch its blobs.
pub(crate) struct Fetcher<'a> {
    /// The directory that takes the blobs.
    pub(crate) layout: &'a Arc<Layout>,
    /// The transfers in progress.
    pub(crate) flights: &'a Keyed<Digest, Flight>,
    /// The limit of the directory.
    pub(crate) throttle: &'a Throttle,
    /// Where the blobs come from.
    pub(crate) source: &'a dyn Source,
    /// Whether a blob that is here outlives a power cut. Otherwise who reads it must compare it with its digest.
    pub(crate) is_durable: bool,
}

impl Fetcher<'_> {
    /// Makes sure that a blob is here: fetches it, or waits for another pull to do so.
    pub(crate) async fn bring(&self, blob: &Blob, told: &Told<'_>) -> Result<(), Fault> {
        if !self.has(blob).await? {
            let flight = self.flights.of(blob.digest.clone(), Flight::default);
            let turn = wait(&flight, blob, told).await;
            // The pull that had the turn before may have fetched it.
            if !self.has(blob).await? {
                self.fetch(blob, &flight, turn, told).await?;
            }
        }
        told(blob, blob.size, true);
        Ok(())
    }

    async fn has(&self, blob: &Blob) -> Result<bool, Fault> {
        let (layout, blob) = (Arc::clone(self.layout), blob.clone());
        blocking(move || Ok(layout.has(&blob.digest, blob.size))).await
    }

    async fn fetch(&self, blob: &Blob, flight: &Flight, turn: Turn, told: &Told<'_>) -> Result<(), Fault> {
        let at = |part: &Part| {
            flight.there.send_replace(part.known());
            told(blob, part.known(), false);
        };
        let (path, wanted) = (self.layout.part(&blob.digest), blob.clone());
        let opened = move || Part::open(&path, &wanted, turn).map_err(|error| broken(&path, &error));
        let mut part = blocking(opened).await?;
        let mut is_more = part.length() > 0;
        while is_more {
            (part, is_more) = with(part, Part::recall).await?;
            at(&part);
        }
        let mut doubts = 0;
        loop {
            part = self.complete(blob, part, &at).await?;
            let was_resumed = part.is_resumed();
            let place = self.layout.blob(&blob.digest);
            let is_durable = self.is_durable;
            let is_kept;
            (part, is_kept) = with(part, move |part| part.keep(&place, is_durable)).await?;
            if is_kept {
                return Ok(());
            }
            // Another try is worth it if a power cut may have spoilt the bytes of an earlier attempt, or if the wrong
            // bytes came from a peer that is not asked again. Otherwise the registry itself sent them.
            doubts += 1;
            let is_another_left = doubts < MOST_DOUBTS && self.source.doubt(&blob.digest).await;
            if !is_another_left && !was_resumed {
                with(part, Part::discard).await?;
                let why = "the registry sent other bytes than the digest says; they were not kept";
                return Err(Fault::new(Class::Other, format!("blob {}: {why}", blob.digest)));
            }
        }
    }

    /// Fetches the missing bytes, over as many flows as that takes.
    async fn complete(
        &self,
        blob: &Blob,
        mut part: Part,
        at: &(dyn Fn(&Part) + Send + Sync),
    ) -> Result<Part, Fault> {
        let mut breaks = 0;
        while part.length() < blob.size {
            let before = part.length();
            let fault;
            (part, fault) = self.receive(blob, part, at).await?;
            let Some(fault) = fault else { continue };
            breaks = if part.length().saturating_sub(before) >= HEADWAY { 1 } else { breaks + 1 };
            if !fault.is_transient() || breaks >= BREAKS {
                return Err(fault);
            }
            tracing::debug!(blob = %blob.digest, from = part.length(), %fault, "a blob broke off; going on");
            tokio::time::sleep(PAUSE * breaks).await;
        }
        Ok(part)
    }

    /// Reads one flow to its end, and returns why it ended before the blob did. The outer fault is one of the disk.
    async fn receive(
        &self,
        blob: &Blob,
        mut part: Part,
        at: &(dyn Fn(&Part) + Send + Sync),
    ) -> Result<(Part, Option<Fault>), Fault> {
        let Flow { from, mut pieces, .. } =
            match self.source.blob(&blob.digest, blob.size, part.length()).await {
                Ok(flow) => flow,
                Err(fault) => return Ok((part, Some(fault))),
            };
        if from != part.length() {
            // The source does not support ranges.
            (part, ()) = with(part, Part::restart).await?;
        }
        if from != part.length() {
            let why = "the registry sent another part than was asked for";
            return Ok((part, Some(Fault::new(Class::Other, format!("blob {}: {why}", blob.digest)))));
        }
        let mut left = blob.size.saturating_sub(from);
        let mut writer = Writer::Idle(part);
        loop {
            // The next batch is gathered while this one is written.
            let batch = self.gather(&mut pieces).await;
            part = writer.idle().await?;
            at(&part);
            let Some(rest) = left.checked_sub(batch.bytes) else {
                let why = "the registry sent more bytes than the size says";
                return Ok((part, Some(Fault::new(Class::Other, format!("blob {}: {why}", blob.digest)))));
            };
            left = rest;
            writer =
                if batch.pieces.is_empty() { Writer::Idle(part) } else { Writer::start(part, batch.pieces) };
            let Some(ended) = batch.ended else { continue };
            part = writer.idle().await?;
            at(&part);
            let early = || Fault::new(Class::Network, "the registry ended a blob before its end");
            return Ok((part, ended.err().or_else(|| (left > 0).then(early))));
        }
    }

    /// Gathers the next batch. It may be empty if no bytes come; how long to wait for bytes is decided by the source.
    async fn gather(&self, pieces: &mut BoxStream<'static, Result<Bytes, Fault>>) -> Batch {
        let deadline = Instant::now() + LINGER;
        let mut batch = Batch::default();
        let is_full = |batch: &Batch| batch.bytes >= BATCH || batch.pieces.len() >= PIECES;
        while !is_full(&batch) && batch.ended.is_none() && Instant::now() < deadline {
            match timeout_at(deadline, pieces.next()).await {
                Ok(Some(Ok(piece))) => {
                    self.throttle.take(piece.len()).await;
                    batch.bytes = batch.bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                    batch.pieces.push(piece);
                }
                Ok(Some(Err(fault))) => batch.ended = Some(Err(fault)),
                Ok(None) => batch.ended = Some(Ok(())),
                Err(_) => break,
            }
        }
        batch
    }
}

/// Some pieces of a flow, and how it ended if it did.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    bytes: u64,
    ended: Option<Result<(), Fault>>,
}

/// Waits for the turn, and reports the progress of the pull that has it.
async fn wait(flight: &Arc<Flight>, blob: &Blob, told: &Told<'_>) -> Turn {
    let turn = Arc::clone(&flight.turn).lock_owned();
    tokio::pin!(turn);
    let mut there = flight.there.subscribe();
    loop {
        tokio::select! {
            biased;
            turn = &mut turn => return Turn { _turn: turn, _flight: Arc::clone(flight) },
            Ok(()) = there.changed() => {
                let now = *there.borrow_and_update();
                told(blob, now, false);
            }
        }
    }
}

/// The part, either here or on the thread that writes to it.
enum Writer {
    Idle(Part),
    Busy(JoinHandle<Result<(Part, ()), Fault>>),
}

impl Writer {
    fn start(part: Part, batch: Vec<Bytes>) -> Self {
        Self::Busy(tokio::task::spawn_blocking(move || part.take_through(|part| part.write(&batch))))
    }

    /// Waits for the write to end.
    async fn idle(self) -> Result<Part, Fault> {
        match self {
            Self::Idle(part) => Ok(part),
            Self::Busy(writing) => Ok(ended(writing.await)?.0),
        }
    }
}

/// Runs `work` on a part, on a thread that may wait for the disk.
async fn with<T: Send + 'static>(
    part: Part,
    work: impl FnOnce(&mut Part) -> io::Result<T> + Send + 'static,
) -> Result<(Part, T), Fault> {
    blocking(move || part.take_through(work)).await
}

/// Runs `work` on a thread that may wait for the disk.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    ended(tokio::task::spawn_blocking(work).await)
}

fn ended<T>(outcome: Result<Result<T, Fault>, JoinError>) -> Result<T, Fault> {
    outcome.unwrap_or_else(|_| Err(Fault::new(Class::Other, "the work on the image directory broke off")))
}
