//! Rules by name, in memory and in the store, each with what the last round found: those that load images, and those that
//! take them off agents.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::RwLock;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::access::audit::Deed;
use crate::base::reference::shown;
use crate::base::signal::Signal;
use crate::base::{Error, Result};
use crate::rules::window::{Window, WindowState};
use crate::store::Table;
use crate::store::table::Reader;

/// Most rules of a kind: each is checked again and again, and people can't oversee more than a page.
const MAX_RULES: usize = 100;

/// A rule of some kind.
pub(crate) trait Standing: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Where they are stored, by name.
    const TABLE: Table<Self>;
    /// What one is called.
    const KIND: &'static str;

    /// Its unique name.
    fn name(&self) -> &str;

    /// Whether it is switched on.
    fn is_enabled(&self) -> bool;

    /// When it may begin something; `None` for always.
    fn window(&self) -> Option<&Window>;

    /// The state of its window; `None` if it has none and is always open.
    fn standing(&self, now: Timestamp) -> Option<WindowState> {
        // An update of the system may remove a time zone: better to begin nothing than to begin at a wrong time.
        self.window().map(|window| window.standing(now).unwrap_or(WindowState::Closed(None)))
    }

    /// Whether it may begin something now.
    fn is_open(&self, now: Timestamp) -> bool {
        self.is_enabled() && !matches!(self.standing(now), Some(WindowState::Closed(_)))
    }
}

/// The rules of a kind, each with its status. Clones share them.
pub(crate) struct Book<R, S> {
    pages: Arc<RwLock<Pages<R, S>>>,
    changes: Signal,
}

struct Pages<R, S> {
    rules: BTreeMap<String, Arc<R>>,
    statuses: HashMap<String, Arc<S>>,
}

/// A rule with its current state.
#[derive(Debug)]
pub(crate) struct Told<R, S> {
    /// The rule.
    pub(crate) rule: Arc<R>,
    /// The status from the last round; `None` before the first.
    pub(crate) status: Option<Arc<S>>,
    /// The state of its window; `None` if it has none.
    pub(crate) standing: Option<WindowState>,
}

impl<R, S> Clone for Book<R, S> {
    fn clone(&self) -> Self {
        Self { pages: Arc::clone(&self.pages), changes: self.changes.clone() }
    }
}

impl<R: Standing, S: Send + Sync + 'static> Book<R, S> {
    /// Reads the rules from the store.
    pub(crate) fn load(reader: &Reader) -> Result<Self> {
        let mut rules = BTreeMap::new();
        reader.scan(&R::TABLE, [], |_, rule: R| {
            rules.insert(rule.name().to_owned(), Arc::new(rule));
            Ok(())
        })?;
        let pages = Pages { rules, statuses: HashMap::new() };
        Ok(Self { pages: Arc::new(RwLock::new(pages)), changes: Signal::default() })
    }

    /// Is raised whenever a rule was changed.
    pub(crate) fn changes(&self) -> &Signal {
        &self.changes
    }

    /// Those that are switched on, by name.
    pub(crate) fn enabled(&self) -> Vec<Arc<R>> {
        self.pages.read().rules.values().filter(|rule| rule.is_enabled()).cloned().collect()
    }

    /// Those that are meant, each with its state, by name.
    pub(crate) fn told(&self, now: Timestamp, is_meant: impl Fn(&R) -> bool) -> Vec<Told<R, S>> {
        let pages = self.pages.read();
        let meant = pages.rules.values().filter(|rule| is_meant(rule));
        meant.map(|rule| pages.told(rule, now)).collect()
    }

    /// The rule of this name, if there is one.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<R>> {
        self.pages.read().rules.get(name).cloned()
    }

    /// The rule of this name, with its state.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) fn find(&self, name: &str, now: Timestamp) -> Result<Told<R, S>> {
        let pages = self.pages.read();
        let rule = pages.rules.get(name.trim()).ok_or_else(|| missing::<R>(name))?;
        Ok(pages.told(rule, now))
    }

    /// Whether a rule is as it was.
    pub(crate) fn is_current(&self, rule: &Arc<R>) -> bool {
        self.pages.read().rules.get(rule.name()).is_some_and(|now| Arc::ptr_eq(now, rule))
    }

    /// Notes what a round found out about a rule, unless it was changed meanwhile. The status is made from the one before.
    pub(crate) fn note(&self, rule: &Arc<R>, status: impl FnOnce(Option<&S>) -> S) {
        let mut pages = self.pages.write();
        if pages.rules.get(rule.name()).is_some_and(|now| Arc::ptr_eq(now, rule)) {
            let status = status(pages.statuses.get(rule.name()).map(Arc::as_ref));
            pages.statuses.insert(rule.name().to_owned(), Arc::new(status));
        }
    }

    /// Checks that a rule of this name can be added.
    ///
    /// # Errors
    /// [`Error::Exists`] for a name that is taken, [`Error::LimitReached`] for one rule too many.
    pub(crate) fn check_is_free(&self, name: &str) -> Result<()> {
        let (pages, kind) = (self.pages.read(), R::KIND);
        if pages.rules.contains_key(name) {
            let why = format!("there is a {kind} {name} already; change it, or choose another name");
            return Err(Error::Exists(why));
        }
        if pages.rules.len() >= MAX_RULES {
            let why = format!("there are {MAX_RULES} {kind}s, as many as may be; remove one");
            return Err(Error::LimitReached(why));
        }
        Ok(())
    }

    /// Adds a rule.
    ///
    /// # Errors
    /// Those of [`Book::check_is_free`].
    pub(crate) async fn add(&self, deed: &Deed, rule: R, now: Timestamp) -> Result<Told<R, S>> {
        let (book, rule) = (self.clone(), Arc::new(rule));
        let kept = Arc::clone(&rule);
        deed.write(move |w| {
            // Decided inside the write, where memory and store agree.
            book.check_is_free(kept.name())?;
            w.put(&R::TABLE, kept.name(), kept.as_ref())?;
            w.on_commit(move || book.put(kept));
            Ok(())
        })
        .await?;
        Ok(Told { standing: rule.standing(now), rule, status: None })
    }

    /// Changes a rule: it becomes what is made of it.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name, and those of what makes it.
    pub(crate) async fn change(
        &self,
        deed: &Deed,
        name: &str,
        now: Timestamp,
        make: impl FnOnce(&Arc<R>) -> Result<R> + Send + 'static,
    ) -> Result<Told<R, S>> {
        let (book, name) = (self.clone(), name.trim().to_owned());
        let rule = deed
            .write(move |w| {
                let rule = Arc::new(make(&book.get(&name).ok_or_else(|| missing::<R>(&name))?)?);
                w.put(&R::TABLE, &name, rule.as_ref())?;
                let kept = Arc::clone(&rule);
                w.on_commit(move || book.put(kept));
                Ok(rule)
            })
            .await?;
        Ok(Told { standing: rule.standing(now), rule, status: None })
    }

    /// Removes a rule.
    ///
    /// # Errors
    /// [`Error::Missing`] when no rule has this name.
    pub(crate) async fn remove(&self, deed: &Deed, name: &str) -> Result<()> {
        let (book, name) = (self.clone(), name.trim().to_owned());
        deed.write(move |w| {
            if !w.remove(&R::TABLE, &name)? {
                return Err(missing::<R>(&name));
            }
            w.on_commit(move || {
                let mut pages = book.pages.write();
                pages.rules.remove(&name);
                pages.statuses.remove(&name);
                book.changes.raise();
            });
            Ok(())
        })
        .await
    }

    /// Puts a rule that is new, or another than before: nothing is known of it.
    fn put(&self, rule: Arc<R>) {
        let mut pages = self.pages.write();
        pages.statuses.remove(rule.name());
        pages.rules.insert(rule.name().to_owned(), rule);
        self.changes.raise();
    }
}

impl<R: Standing, S> Pages<R, S> {
    fn told(&self, rule: &Arc<R>, now: Timestamp) -> Told<R, S> {
        Told {
            rule: Arc::clone(rule),
            status: self.statuses.get(rule.name()).cloned(),
            standing: rule.standing(now),
        }
    }
}

fn missing<R: Standing>(name: &str) -> Error {
    Error::missing(R::KIND, shown(name.trim()))
}
