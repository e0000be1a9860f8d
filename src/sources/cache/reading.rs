//! Reads a blob while it arrives in the cache.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::FutureExt as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Arrival, Arriving, MAX_REMARKS, Section, length};
use crate::base::digest::Hasher;
use crate::engine::fault::{Class, Fault};
use crate::engine::oci::fetch::blocking;
use crate::engine::oci::manifest::Blob;
use crate::engine::source::Source;
use crate::sources::file::{PIECE, pieces};
use crate::sources::verified::verified_after;

/// How long a transfer whose part is gone may take to say why it failed.
const ENDING: Duration = Duration::from_secs(1);

/// A blob that is read while it arrives.
pub(super) struct Reading {
    pub(super) follower: watch::Receiver<Arriving>,
    /// Held so that the transfer goes on.
    pub(super) arrival: Arc<Arrival>,
    pub(super) section: Arc<Section>,
    pub(super) blob: Blob,
    pub(super) behind: Arc<dyn Source>,
    pub(super) remarks: Arc<Mutex<Vec<String>>>,
    pub(super) file: Option<File>,
    /// Whether it reads from the first byte on.
    pub(super) is_whole: bool,
    /// How far the reader is.
    pub(super) at: u64,
    /// How far the blob was when this last looked. It goes back only if the bytes so far were wrong.
    pub(super) seen: u64,
}

/// What a reader does next.
enum Step {
    Read(u64),
    End,
    Wait,
    /// The transfer failed.
    GoBehind(Fault),
    /// The bytes so far turned out to be wrong.
    Anew,
}

impl Reading {
    /// The bytes of the blob, as they come.
    pub(super) fn pieces(self) -> BoxStream<'static, Result<Bytes, Fault>> {
        let read =
            stream::unfold(Some(Ok(self)), async |reading: Option<Result<Self, Rest>>| match reading? {
                Ok(reading) => reading.next().await,
                Err(mut rest) => {
                    let piece = rest.next().await?;
                    Some((piece, Some(Err(rest))))
                }
            });
        read.boxed()
    }

    fn step(&mut self) -> Step {
        let now = self.follower.borrow_and_update().clone();
        let is_lower = now.bytes < self.seen;
        // The last byte comes once the blob is verified and in its place: who has all bytes reads no further, and the
        // transfer ends with its last reader.
        let most = if now.ended.is_some() { self.blob.size } else { self.blob.size.saturating_sub(1) };
        let there = now.bytes.min(most);
        self.seen = now.bytes;
        match now.ended {
            _ if there > self.at => Step::Read(there - self.at),
            Some(Ok(())) if self.at >= self.blob.size => Step::End,
            Some(Err(_)) if self.at >= self.blob.size => Step::Anew,
            Some(Err(fault)) => Step::GoBehind(fault),
            _ if is_lower => Step::Anew,
            Some(Ok(())) => Step::GoBehind(Fault::new(Class::Other, "the blob went away")),
            None => Step::Wait,
        }
    }

    async fn next(mut self) -> Option<(Result<Bytes, Fault>, Option<Result<Self, Rest>>)> {
        loop {
            match self.step() {
                Step::End => return None,
                Step::Read(most) => {
                    return match self.read(most).await {
                        Ok((Ok(piece), reading)) => Some((Ok(piece), Some(Ok(reading)))),
                        Ok((Err(fault), mut reading)) => {
                            // The part may be gone: its transfer has just failed, and says why in a moment.
                            let ended = reading.follower.wait_for(|now| now.ended.is_some());
                            let ended = timeout(ENDING, ended).await.ok().and_then(Result::ok);
                            let ended = ended.and_then(|now| now.ended.clone());
                            let why = ended.and_then(Result::err).unwrap_or(fault);
                            reading.go_behind(&why).await
                        }
                        Err(fault) => Some((Err(fault), None)),
                    };
                }
                Step::Anew => {
                    let why = "other bytes came than the digest says; they are fetched again";
                    return Some((Err(Fault::new(Class::Network, why)), None));
                }
                Step::GoBehind(why) => return self.go_behind(&why).await,
                Step::Wait => {
                    if self.follower.changed().await.is_err() {
                        let why = Fault::new(Class::Other, "the transfer broke off");
                        return self.go_behind(&why).await;
                    }
                }
            }
        }
    }

    async fn read(mut self, most: u64) -> Result<(Result<Bytes, Fault>, Self), Fault> {
        let read = blocking(move || {
            let piece = self.read_now(most).map_err(|error| unreadable(&error));
            Ok((piece, self))
        });
        read.await
    }

    /// Reads the next bytes. It waits for the disk.
    fn read_now(&mut self, most: u64) -> io::Result<Bytes> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => File::open(self.section.layout.part(&self.blob.digest))
                .or_else(|_| File::open(self.section.layout.blob(&self.blob.digest)))?,
        };
        let most = usize::try_from(most).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; most];
        let read = file.seek(SeekFrom::Start(self.at)).and_then(|_| file.read_exact(&mut piece));
        self.file = Some(file);
        read?;
        self.at += length(&piece);
        Ok(Bytes::from(piece))
    }

    /// Goes on where this stopped, from the source behind the cache. A whole blob is verified nevertheless.
    async fn go_behind(self, why: &Fault) -> Option<(Result<Bytes, Fault>, Option<Result<Self, Rest>>)> {
        remark(&self.remarks, why);
        let Self { behind, blob, at, arrival, is_whole, file, .. } = self;
        drop(arrival);
        let rest = async {
            // Before the source is asked: it may take longer than the source waits for its reader.
            let hasher = if is_whole { Some(begun(file, at, blob.digest.hasher()).await?) } else { None };
            let flow = behind.blob(&blob.digest, blob.size, at).await?;
            if flow.from != at {
                let why = "the source behind the cache can't go on where it broke off";
                return Err(Fault::new(Class::Network, why));
            }
            let Some(hasher) = hasher else { return Ok(flow.pieces) };
            let doubted = blob.digest.clone();
            let doubt = move || {
                let (behind, doubted) = (Arc::clone(&behind), doubted.clone());
                async move { behind.doubt(&doubted).await }.map(|_| ()).boxed()
            };
            Ok(verified_after(hasher, flow.pieces, blob.digest, doubt))
        };
        match rest.await {
            Ok(mut rest) => {
                let piece = rest.next().await?;
                Some((piece, Some(Err(rest))))
            }
            Err(fault) => Some((Err(fault), None)),
        }
    }
}

/// The hasher after the first bytes of this file, which were handed on already.
async fn begun(file: Option<File>, bytes: u64, mut hasher: Hasher) -> Result<Hasher, Fault> {
    let Some(file) = file else {
        let lost = || Fault::new(Class::Network, "the cache lost what it had handed on");
        return if bytes == 0 { Ok(hasher) } else { Err(lost()) };
    };
    let mut there = pieces(file, 0, bytes);
    while let Some(piece) = there.next().await {
        hasher.update(&piece.map_err(|error| unreadable(&error))?);
    }
    Ok(hasher)
}

fn unreadable(error: &io::Error) -> Fault {
    Fault::new(Class::Network, format!("the cache can't be read: {error}"))
}

/// What is left of a blob, from behind the cache.
type Rest = BoxStream<'static, Result<Bytes, Fault>>;

/// Notes what the cache failed at.
pub(super) fn remark(remarks: &Mutex<Vec<String>>, why: &Fault) {
    let mut remarks = remarks.lock();
    let remark = format!("the cache could not keep all of it: {why}");
    if remarks.len() < MAX_REMARKS && !remarks.contains(&remark) {
        tracing::warn!(%why, "a cache is passed by");
        remarks.push(remark);
    }
}
