//! Makes room on an agent for an image that does not fit: one image after the other goes, until it does.

use std::collections::HashSet;

use crate::base::digest::Digest;
use crate::catalog::image::ImageRecord;
use crate::engine::Engine;
use crate::engine::fault::{Class, Fault};
use crate::fleet::presence::Presence;
use crate::tasks::worker::Workplace;
use crate::transfer::plan::{Planner, sought};
use crate::transfer::removal::{Departure, take_off};
use crate::transfer::room::{Going, Terms, going};
use crate::transfer::work::Leaving;
use crate::transfer::worker::TransferWorker;

impl TransferWorker {
    /// Makes room for an image, if it does not fit. Returns the images that went. If all that may go would not suffice,
    /// nothing goes.
    pub(in crate::transfer) async fn make_room(
        &self,
        agent: &str,
        engine: &dyn Engine,
        image: &ImageRecord,
        place: &Workplace,
    ) -> Result<Vec<String>, Fault> {
        let (mut gone, mut tried) = (Vec::new(), HashSet::new());
        let result = self.until_it_fits(agent, engine, image, place, &mut gone, &mut tried).await;
        match result {
            Ok(()) => Ok(gone),
            Err(fault) if gone.is_empty() => Err(fault),
            Err(fault) => {
                let why = format!("{}; to make room, {} went before", fault.message, gone.join(", "));
                Err(Fault::new(fault.class, why))
            }
        }
    }

    async fn until_it_fits(
        &self,
        agent: &str,
        engine: &dyn Engine,
        image: &ImageRecord,
        place: &Workplace,
        gone: &mut Vec<String>,
        tried: &mut HashSet<Digest>,
    ) -> Result<(), Fault> {
        loop {
            if place.stop.is_cancelled() {
                return Err(Fault::stopped());
            }
            // How much is free, and what is there, by the engine's own words: estimates do not add up.
            self.fleet.look(agent).await?;
            let Some(next) = self.next_to_go(agent, image, tried).await? else { return Ok(()) };
            let held = next.resident.held;
            tried.insert(held.digest.clone());
            let Some(_alone) = self.limits.try_image(agent, &self.catalog.content_of(&held)) else {
                continue;
            };
            let Some(found) = self.fleet.find(agent) else { return Err(Fault::stopped()) };
            if self.rooms.stay(&found, &held.digest, None).await.is_some() {
                continue;
            }
            let (digest, names) = (held.digest.clone(), held.names.clone());
            let leaving = Leaving { digest, names, is_careful: true, terms: None };
            let shown = held.names.first().cloned().unwrap_or_else(|| held.digest.to_string());
            place.waits(Some(format!("making room: {shown} goes")));
            let departure = take_off(engine, &leaving).await;
            place.waits(None);
            match departure? {
                Departure::Gone | Departure::Untagged(_) => gone.push(shown),
                Departure::Absent | Departure::Stays(_) => {}
            }
        }
    }

    /// The next image to go, `None` if the image fits, or if nobody can tell.
    async fn next_to_go(
        &self,
        agent: &str,
        image: &ImageRecord,
        tried: &HashSet<Digest>,
    ) -> Result<Option<Going>, Fault> {
        let inside = |error: crate::base::Error| Fault::new(Class::Other, error.to_string());
        let Some(found) = self.fleet.find(agent) else { return Ok(None) };
        let Some(free) = found.free_bytes() else { return Ok(None) };
        // Nothing comes if it is there.
        let name = image.canonical();
        if self.fleet.presence(agent, &sought(image, name.as_str(), &[])) == Presence::Present {
            return Ok(None);
        }
        let need = Planner::new(&self.catalog, &self.fleet).need(&found, image).await.map_err(inside)?;
        if need <= free {
            return Ok(None);
        }
        let short = |why: String| {
            Fault::new(Class::NoSpace, format!("it takes up to {need} bytes, {free} are free, and {why}"))
        };
        let Some(now) = self.rooms.now() else {
            return Err(short("nothing may go while the server does not believe its clock".into()));
        };
        let mut survey = self.rooms.survey(std::slice::from_ref(&found)).await;
        let wanted = [name.to_string()];
        let mut residents = survey.residents(&found, &wanted).await.map_err(inside)?;
        residents.push(survey.newcomer(image).await.map_err(inside)?);
        let terms = Terms {
            // What the catalog does not know can't be loaded again.
            takes: &|resident| resident.is_known && !tried.contains(&resident.held.digest),
            keep_last: None,
            unused_for: None,
            goal: Some(need - free),
        };
        let mut going = going(&residents, &terms, now);
        let frees = going.iter().map(|going| going.frees).fold(0, u64::saturating_add);
        if frees < need - free {
            return Err(short(format!("only {frees} more could be freed")));
        }
        Ok((!going.is_empty()).then(|| going.remove(0)))
    }
}
