//! Follows the engine, and works out what changed since the manager was last told.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

use crate::base::digest::Digest;
use crate::engine::fault::Fault;
use crate::engine::follow::{Follower, follow};
use crate::engine::image::{Held, Uses};
use crate::engine::{About, Change, Disk, Engine};
use crate::wire::message::{FromAgent, Images};
use crate::wire::{MAX_IMAGES, PART};

/// The change of free disk space, in bytes, that is worth a message of its own.
const DISK_STEP: u64 = 64 * 1024 * 1024;

/// What the agent knows about its engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// What the engine says about itself, or why it does not answer; `None` before it was first asked.
    about: Option<Result<About, Fault>>,
    /// How many times the engine was met: each meeting calls for a full report.
    meeting: u64,
    /// Whether the engine was read since it was met.
    is_read: bool,
    held: BTreeMap<Digest, Held>,
    disk: Option<Disk>,
    /// What its containers use, if it can tell, and could when it was last asked.
    uses: Option<Uses>,
}

/// Follows one engine.
pub(crate) struct Holdings {
    engine: Arc<dyn Engine>,
    snapshot: watch::Sender<Arc<Snapshot>>,
    /// Held while the engine is read, so that an older read never replaces a newer one.
    reading: Mutex<()>,
}

impl Holdings {
    /// Takes this engine; nothing is known about it before [`Holdings::follow`].
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine, snapshot: watch::Sender::default(), reading: Mutex::default() }
    }

    /// Returns the latest snapshot and its changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Follows the engine until told to stop.
    pub(crate) async fn follow(&self, shutdown: CancellationToken) {
        follow(self.engine.as_ref(), &mut Noted(self), &shutdown).await;
    }

    /// Reads the engine now.
    pub(crate) async fn look(&self) -> Result<(), Fault> {
        let _alone = self.reading.lock().await;
        let held = self.engine.images().await?;
        let disk = self.engine.disk().await.ok();
        let uses = self.uses(&held).await;
        self.change(|snapshot| {
            snapshot.held =
                held.into_iter().take(MAX_IMAGES).map(|held| (held.digest.clone(), held)).collect();
            snapshot.disk = disk.or(snapshot.disk);
            snapshot.uses = uses;
            snapshot.is_read = true;
        });
        Ok(())
    }

    /// Reads only which images containers use.
    async fn look_at_uses(&self) {
        let _alone = self.reading.lock().await;
        let held: Vec<Held> = self.snapshot.borrow().held.values().cloned().collect();
        let uses = self.uses(&held).await;
        self.change(|snapshot| snapshot.uses = uses);
    }

    /// What containers use of these images. If that can't be read now, it is read again later: it must not keep the
    /// images from being told.
    async fn uses(&self, held: &[Held]) -> Option<Uses> {
        self.engine.uses(held).await.unwrap_or_else(|fault| {
            tracing::warn!(%fault, "which images are in use could not be read");
            None
        })
    }

    fn change(&self, change: impl FnOnce(&mut Snapshot)) {
        self.snapshot.send_modify(|snapshot| change(Arc::make_mut(snapshot)));
    }
}

/// Takes note of what happens to the engine.
struct Noted<'a>(&'a Holdings);

#[async_trait]
impl Follower for Noted<'_> {
    async fn met(&mut self, about: About) -> Result<(), Fault> {
        tracing::info!(engine = %about.kind, version = about.version, "the engine answers");
        self.0.change(|snapshot| {
            snapshot.about = Some(Ok(about));
            snapshot.meeting += 1;
            snapshot.is_read = false;
        });
        Ok(())
    }

    async fn read(&mut self, what: Change) -> Result<(), Fault> {
        match what {
            Change::Images => self.0.look().await,
            Change::Containers => {
                self.0.look_at_uses().await;
                Ok(())
            }
        }
    }

    fn lost(&mut self, fault: Fault) {
        tracing::warn!(%fault, "the engine does not answer");
        self.0.change(|snapshot| {
            snapshot.about = Some(Err(fault));
            snapshot.is_read = false;
        });
    }
}

/// The messages for a manager that knows `before`; `None` if it knows nothing yet.
pub(crate) fn messages(before: Option<&Snapshot>, now: &Snapshot) -> Vec<FromAgent> {
    let Some(about) = &now.about else { return Vec::new() };
    let about = match about {
        Ok(about) => about,
        Err(fault) => {
            let is_told = before.is_some_and(|before| matches!(before.about, Some(Err(_))));
            return if is_told { Vec::new() } else { vec![FromAgent::Gone(fault.clone().into())] };
        }
    };
    let met = before.filter(|before| before.meeting == now.meeting && matches!(before.about, Some(Ok(_))));
    let mut messages = Vec::new();
    if met.is_none() {
        messages.push(FromAgent::Here(about.clone().into()));
    }
    if now.is_read {
        // That it can't tell what is used any more, only a full report says.
        let tells = |before: &&Snapshot| before.uses.is_none() || now.uses.is_some();
        match met.filter(|before| before.is_read).filter(tells) {
            None => messages.extend(full(now)),
            Some(before) => messages.extend(changes(before, now)),
        }
    }
    messages
}

fn full(now: &Snapshot) -> Vec<FromAgent> {
    let mut parts: Vec<Images> = parts(now.held.values());
    if let Some(last) = parts.last_mut() {
        last.last = true;
        last.disk = now.disk.map(Into::into);
        last.uses = now.uses.clone().map(Into::into);
    }
    parts.into_iter().map(|part| FromAgent::Images(Images { full: true, ..part })).collect()
}

fn changes(before: &Snapshot, now: &Snapshot) -> Vec<FromAgent> {
    let changed = now.held.values().filter(|held| before.held.get(&held.digest) != Some(*held));
    let gone = before.held.keys().filter(|digest| !now.held.contains_key(*digest));
    let gone: Vec<Digest> = gone.cloned().collect();
    let mut parts = parts(changed);
    let uses = now.uses.as_ref().filter(|uses| before.uses.as_ref() != Some(*uses));
    let is_quiet = gone.is_empty() && parts.iter().all(|part| part.held.is_empty());
    if is_quiet && uses.is_none() && !disk_moved(before.disk, now.disk) {
        return Vec::new();
    }
    if let Some(last) = parts.last_mut() {
        last.gone = gone;
        last.disk = now.disk.map(Into::into);
        last.uses = uses.cloned().map(Into::into);
    }
    parts.into_iter().map(FromAgent::Images).collect()
}

fn disk_moved(before: Option<Disk>, now: Option<Disk>) -> bool {
    let free = |disk: Option<Disk>| disk.and_then(|disk| disk.free_bytes).unwrap_or_default();
    before.is_some() != now.is_some() || free(before).abs_diff(free(now)) >= DISK_STEP
}

/// Splits holdings into parts that each fit in a message; there is at least one.
fn parts<'a>(held: impl Iterator<Item = &'a Held>) -> Vec<Images> {
    let (mut parts, mut room) = (vec![Images::default()], PART);
    for held in held {
        // A digest has some 80 characters, and each entry contains a few field names.
        let texts = held.names.iter().map(|name| name.len() + 4).sum::<usize>();
        let size = 120 + texts + held.manifests.len() * 80;
        if size > room {
            parts.push(Images::default());
            room = PART;
        }
        room = room.saturating_sub(size);
        if let Some(part) = parts.last_mut() {
            part.held.push(held.clone().into());
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Snapshot, messages};
    use crate::base::digest::Digest;
    use crate::engine::fault::{Class, Fault};
    use crate::engine::image::{Held, Uses};
    use crate::engine::{About, EngineKind};
    use crate::wire::message::{FromAgent, Images};
    use crate::wire::{MAX_MESSAGE, MAX_NAMES};

    fn about() -> About {
        About {
            kind: EngineKind::Docker,
            id: None,
            hostname: "h".into(),
            version: "1".into(),
            os: "linux".into(),
            architecture: "x86_64".into(),
            labels: BTreeMap::new(),
        }
    }

    fn held(name: &str) -> Held {
        let digest = Digest::sha256_of(name.as_bytes());
        Held {
            digest,
            parts: Vec::new(),
            names: vec![format!("cr.io/{name}:1")],
            manifests: Vec::new(),
            size_bytes: 1,
        }
    }

    fn with(names: &[&str]) -> Snapshot {
        let held = names.iter().map(|name| held(name)).map(|held| (held.digest.clone(), held)).collect();
        Snapshot { about: Some(Ok(about())), meeting: 1, is_read: true, held, disk: None, uses: None }
    }

    fn images(messages: &[FromAgent]) -> Vec<&Images> {
        messages
            .iter()
            .filter_map(|messages| if let FromAgent::Images(images) = messages { Some(images) } else { None })
            .collect()
    }

    #[test]
    fn who_knows_nothing_is_told_all_and_then_only_what_changed() {
        let (first, second) = (with(&["a", "b"]), with(&["b", "c"]));
        let all = messages(None, &first);
        assert!(matches!(all.first(), Some(FromAgent::Here(_))), "{all:?}");
        let [report] = images(&all)[..] else { panic!("{all:?}") };
        assert!(report.full && report.last && report.held.len() == 2);

        let change = messages(Some(&first), &second);
        let [FromAgent::Images(change)] = change.as_slice() else { panic!("{change:?}") };
        assert!(!change.full);
        assert_eq!(change.held, [held("c").into()]);
        assert_eq!(change.gone, [held("a").digest]);
        assert!(messages(Some(&second), &second).is_empty());
    }

    #[test]
    fn what_containers_use_is_told_when_it_changes_and_not_again() {
        let idle = Snapshot { uses: Some(Uses::default()), ..with(&["a"]) };
        let uses = Uses { now: [held("a").digest].into(), ..Uses::default() };
        let busy = Snapshot { uses: Some(uses.clone()), ..with(&["a"]) };
        let change = messages(Some(&idle), &busy);
        let [FromAgent::Images(change)] = change.as_slice() else { panic!("{change:?}") };
        assert_eq!((change.held.len(), &change.uses), (0, &Some(uses.into())));
        assert!(messages(Some(&busy), &busy).is_empty());
        let all = messages(None, &busy);
        assert!(images(&all)[0].uses.is_some());
        let unknown = Snapshot { uses: None, ..with(&["a"]) };
        assert!(images(&messages(None, &unknown))[0].uses.is_none(), "what is not known is not told");
        let lost = messages(Some(&idle), &unknown);
        assert!(
            images(&lost)[0].full && images(&lost)[0].uses.is_none(),
            "and that it is not known any more is"
        );
        assert!(messages(Some(&unknown), &unknown).is_empty());
    }

    #[test]
    fn an_engine_that_went_away_is_told_of_once_and_met_anew() {
        let gone =
            Snapshot { about: Some(Err(Fault::new(Class::EngineGone, "x"))), is_read: false, ..with(&["a"]) };
        assert!(matches!(messages(Some(&with(&["a"])), &gone).as_slice(), [FromAgent::Gone(_)]));
        assert!(messages(Some(&gone), &gone).is_empty());
        let back = Snapshot { meeting: 2, ..with(&["a"]) };
        assert!(matches!(
            messages(Some(&gone), &back).as_slice(),
            [FromAgent::Here(_), FromAgent::Images(_)]
        ));
        assert!(messages(None, &Snapshot::default()).is_empty());
    }

    #[test]
    fn a_large_report_comes_in_parts_that_fit_a_message() {
        let mut large = with(&[]);
        for number in 0..2_000 {
            let names = (0..MAX_NAMES / 4).map(|tag| format!("cr.example.org/lab/image-{number}:{tag}"));
            let image = Held { names: names.collect(), ..held(&number.to_string()) };
            large.held.insert(image.digest.clone(), image);
        }
        let all = messages(None, &large);
        let parts = images(&all);
        assert!(parts.len() > 5, "{}", parts.len());
        assert_eq!(parts.iter().map(|part| part.held.len()).sum::<usize>(), 2_000);
        assert!(parts.iter().all(|part| serde_json::to_string(part).unwrap().len() < MAX_MESSAGE));
        assert_eq!(parts.iter().filter(|part| part.last).count(), 1);
        assert!(parts.last().unwrap().last);
    }
}
