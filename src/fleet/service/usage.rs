//! The use of the images of agents: taken in from their reports, kept over restarts, and asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::base::Result;
use crate::base::digest::Digest;
use crate::base::reference::as_told;
use crate::engine::fault::{Class, Fault};
use crate::engine::image::{Held, Uses};
use crate::fleet::index::Index;
use crate::fleet::service::Fleet;
use crate::fleet::usage::{ImageUse, Moment, Usage, UsageRecord};
use crate::store::Table;
use crate::store::last_seen::last_seen;
use crate::store::table::{Reader, Writer};

const USAGE: Table<UsageRecord> = Table::new("AGENT_ID_TO_USAGE");

/// How often what has changed is written.
const SAVE: Duration = Duration::from_secs(15);

/// Reads what was known when the server last stopped.
pub(in crate::fleet) fn load(reader: &Reader, index: &mut Index) -> Result<()> {
    let stopped = last_seen(reader)?;
    reader.scan(&USAGE, [], |id, record| {
        let number = std::str::from_utf8(id).ok().and_then(|id| index.numbers.get(id));
        let entry = number.and_then(|number| index.agents.get_mut(*number)).and_then(Option::as_mut);
        if let Some(entry) = entry {
            entry.usage = Usage::of(record, stopped);
        }
        Ok(())
    })
}

/// Forgets the use of the images of an agent that is removed.
pub(in crate::fleet) fn remove(writer: &mut Writer, id: &str) -> Result<()> {
    writer.remove(&USAGE, id).map(drop)
}

impl Fleet {
    pub(in crate::fleet) fn moment(&self) -> Moment {
        Moment { day: self.clock.stamp(), steady: self.clock.steady() }
    }

    /// Notes which images the containers of an agent use.
    pub(crate) fn note_uses(&self, id: &str, uses: &Uses) {
        let at = self.moment();
        self.with_usage(id, |usage, held| usage.note(uses, held, at));
    }

    /// Notes that an agent does not tell which images its containers use, or not now.
    pub(crate) fn note_untold(&self, id: &str) {
        let now = self.clock.stamp();
        self.with_usage(id, |usage, _| usage.note_untold(now));
    }

    /// Notes that somebody asked for this content on an agent: that counts as if it had come just now.
    pub(crate) fn note_wanted(&self, id: &str, digest: &Digest) {
        let at = self.moment();
        self.with_usage(id, |usage, _| usage.came(digest, at));
    }

    /// Changes what is known about the use of the images that an agent holds.
    fn with_usage(&self, id: &str, change: impl FnOnce(&mut Usage, &[Arc<Held>])) {
        let mut index = self.index.write();
        let Index { agents, numbers, holdings, .. } = &mut *index;
        let Some(number) = numbers.get(id).copied() else { return };
        if let Some(entry) = agents.get_mut(number).and_then(Option::as_mut) {
            change(&mut entry.usage, holdings.of_agent(number));
        }
    }

    /// The images that an agent holds, by its last report, with what is known about the use of each.
    pub(crate) fn held_and_used(&self, id: &str) -> Vec<(Arc<Held>, ImageUse)> {
        let (index, now) = (self.index.read(), self.clock.stamp());
        let Some((number, entry)) = index.numbers.get(id).and_then(|n| Some((*n, index.by_number(*n)?)))
        else {
            return Vec::new();
        };
        let held = index.holdings.of_agent(number).iter();
        held.map(|held| (Arc::clone(held), entry.usage.of_image(&held.digest, now))).collect()
    }

    /// What is known about the use of what this name means on an agent, if the name is there.
    pub(crate) fn use_of(&self, id: &str, name: &str) -> Option<ImageUse> {
        let (index, now) = (self.index.read(), self.clock.stamp());
        let number = *index.numbers.get(id)?;
        let mut held = index.holdings.of_agent(number).iter();
        let told = as_told(name);
        let held = held.find(|held| held.names.iter().any(|name| *name == told))?;
        Some(index.by_number(number)?.usage.of_image(&held.digest, now))
    }

    /// Reads an agent's engine now: its images, its disk and what its containers use. An agent on another machine tells
    /// its uses by itself.
    ///
    /// # Errors
    /// The agent can't be reached, or its engine does not answer.
    pub(crate) async fn look(&self, id: &str) -> Result<(), Fault> {
        let engine = self.reach(id).map_err(|away| Fault::new(Class::EngineGone, away.reason))?;
        let epoch = self.begin_read();
        let held = engine.images().await?;
        let disk = engine.disk().await.ok();
        let uses = engine.uses(&held).await;
        self.report(id, epoch, held, disk);
        if let Some(uses) = uses? {
            self.note_uses(id, &uses);
        }
        Ok(())
    }

    /// Writes what is known about the use of images whenever it has changed, until the server stops, and then once more.
    pub(crate) async fn keep_usage(self, shutdown: CancellationToken) {
        loop {
            let is_last = timeout(SAVE, shutdown.cancelled()).await.is_ok();
            if let Err(why) = self.save_usage().await {
                tracing::warn!(%why, "which images were in use could not be written; it is tried again");
            }
            if is_last {
                return;
            }
        }
    }

    pub(in crate::fleet) async fn save_usage(&self) -> Result<()> {
        let unsaved: Vec<(String, UsageRecord)> = {
            let mut index = self.index.write();
            let Index { agents, numbers, holdings, .. } = &mut *index;
            let record = |(id, number): (&String, &usize)| {
                let entry = agents.get_mut(*number)?.as_mut()?;
                if !std::mem::take(&mut entry.usage.is_unsaved) {
                    return None;
                }
                Some((id.clone(), entry.usage.record(holdings.of_agent(*number))?))
            };
            numbers.iter().filter_map(record).collect()
        };
        if unsaved.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = unsaved.iter().map(|(id, _)| id.clone()).collect();
        let fleet = self.clone();
        let written = self.store.write(move |w| {
            // An agent may have been removed meanwhile.
            let known = unsaved.iter().filter(|(id, _)| fleet.find(id).is_some());
            known.into_iter().try_for_each(|(id, record)| w.put(&USAGE, id, record))
        });
        let result = written.await;
        if result.is_err() {
            for id in &ids {
                self.with_usage(id, |usage, _| usage.is_unsaved = true);
            }
        }
        result
    }
}
