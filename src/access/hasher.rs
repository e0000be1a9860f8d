//! The only place where passwords are hashed: few at a time, so that clients who try passwords can take neither all
//! processors nor all memory. A caller that has to wait holds no thread.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use argon2::password_hash::{Output, SaltString};
use argon2::{Algorithm, Argon2, Block, Params, PasswordHash, Version};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::access::shares::Shares;
use crate::base::ids::UserId;
use crate::base::secret::Secret;
use crate::base::{Error, Result};

/// Longest password we hash; argon2 would take any length, so also an attacker's megabytes.
pub(crate) const MAX_PASSWORD: usize = 1024;
/// Shortest password we accept (NIST SP 800-63B).
pub(crate) const MIN_PASSWORD: usize = 8;

/// OWASP's first recommendation for argon2id: 19 MiB, 2 passes, 1 lane.
const MEMORY: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// The lengths of a salt and of a hash, in bytes.
const SALT: usize = 16;
const HASH: usize = 32;

/// How many passwords are hashed at once: at least two, so that one turn is left for known addresses, and at most four,
/// which take 76 MiB and do a hundred in a second.
const AT_ONCE: (usize, usize) = (2, 4);
/// How many attempts from known addresses may wait for their turn.
const KNOWN_WAITING: usize = 256;
/// How many attempts from other addresses may wait: some ten seconds' worth on a fast machine. The throttle limits how
/// many of them come from one address.
const STRANGERS_WAITING: usize = 1_000;
/// How many new passwords may wait: those of one admin, and those of all.
const NEW_WAITING: (usize, usize) = (200, 600);
/// How long an attempt may wait. A person who has waited this long has given up.
const MAX_WAIT: Duration = Duration::from_mins(1);
/// The size of a piece of memory, in blocks of 1 KiB. The GNU C library returns pieces larger than 32 MiB to the system
/// at once; smaller ones it keeps for each thread that ever hashed. The unused part of a piece takes no memory.
const RESERVED: usize = 33 * 1024;

/// The queue in which a password waits to be hashed.
#[derive(Debug, Clone, Copy)]
pub enum Line {
    /// A sign-in to an account from an address known for it. No other queue can block it.
    Known,
    /// A sign-in from any other address.
    Strangers,
    /// This admin gives a user a password. Only one of these runs at a time, so that the other queues get their turns.
    New(UserId),
}

/// Checks and hashes passwords. Each takes 19 MiB and tens of milliseconds. Clones share the turns.
#[derive(Clone)]
pub struct Hasher {
    shared: Arc<Shared>,
}

struct Shared {
    turns: Arc<Semaphore>,
    known: Queue,
    strangers: Queue,
    new: Queue,
    admins: Shares<UserId>,
    memory: Mutex<Vec<Vec<Block>>>,
    /// A hash that no password has; an attempt at an account that does not exist is compared with it.
    nobody: String,
}

/// The attempts of one kind that wait, and a limit on how many of them are hashed at once.
struct Queue {
    at_once: Arc<Semaphore>,
    /// Counts the attempts that wait and those being hashed together.
    places: Arc<Semaphore>,
}

impl Queue {
    fn new(at_once: usize, waiting: usize) -> Self {
        let [at_once, places] = [at_once, at_once + waiting].map(|n| Arc::new(Semaphore::new(n)));
        Self { at_once, places }
    }

    /// Waits for a turn of this queue and a turn of all queues.
    async fn turn(&self, all: &Arc<Semaphore>) -> Result<[OwnedSemaphorePermit; 2]> {
        let own = Arc::clone(&self.at_once).acquire_owned().await.map_err(Error::internal)?;
        Ok([own, Arc::clone(all).acquire_owned().await.map_err(Error::internal)?])
    }
}

impl Hasher {
    /// A hasher that does one more at once than there are processors, within `AT_ONCE`.
    pub fn new() -> Result<Self> {
        let (least, most) = AT_ONCE;
        let turns = (available_parallelism().map_or(1, NonZero::get) + 1).clamp(least, most);
        Self::with_turns(turns, STRANGERS_WAITING)
    }

    fn with_turns(turns: usize, waiting: usize) -> Result<Self> {
        let (mut salt, mut hash) = ([0_u8; SALT], [0_u8; HASH]);
        getrandom::fill(&mut salt).and_then(|()| getrandom::fill(&mut hash)).map_err(Error::internal)?;
        let (each, all) = NEW_WAITING;
        let shared = Shared {
            turns: Arc::new(Semaphore::new(turns)),
            known: Queue::new(turns, KNOWN_WAITING),
            // One turn is always left for others.
            strangers: Queue::new(turns.saturating_sub(1).max(1), waiting),
            new: Queue::new(1, all),
            admins: Shares::new(each, all),
            memory: Mutex::default(),
            nobody: written(&params()?, &salt, &hash)?,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether the password is the one that was hashed. Without a hash it never is, and finding that takes as long.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many are waiting already.
    pub async fn matches(&self, line: Line, password: Secret, hash: Option<String>) -> Result<bool> {
        let is_known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.shared.nobody.clone());
        let matches = self.in_turn(line, move |shared| shared.matches(&password, &hash)).await?;
        Ok(matches && is_known)
    }

    /// The hash of a password, in PHC string format with its own salt.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many are waiting already, and [`Error::Invalid`] for a password that is too short or
    /// too long.
    pub(crate) async fn hash(&self, line: Line, password: Secret) -> Result<String> {
        check_length(&password)?;
        self.in_turn(line, move |shared| shared.hash(&password)).await
    }

    /// The hash of a password, made on this thread: for the start and the console, where no one else waits.
    ///
    /// # Errors
    /// Those of [`Hasher::hash`]; [`Error::Busy`] when no turn is free.
    pub fn hash_now(&self, password: &Secret) -> Result<String> {
        check_length(password)?;
        let _turn = self.shared.turns.try_acquire().map_err(|_| busy())?;
        self.shared.hash(password)
    }

    /// Gives back unused memory. It is kept for a while first, since getting it costs as much as a part of a hash.
    pub(crate) fn tidy(&self) {
        self.shared.memory.lock().clear();
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        line: Line,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let (queue, share) = match line {
            Line::Known => (&shared.known, None),
            Line::Strangers => (&shared.strangers, None),
            Line::New(admin) => (&shared.new, Some(shared.admins.take(&admin).ok_or_else(busy)?)),
        };
        let place = Arc::clone(&queue.places).try_acquire_owned().map_err(|_| busy())?;
        let turn = tokio::time::timeout(MAX_WAIT, queue.turn(&shared.turns)).await.map_err(|_| busy())??;
        let shared = Arc::clone(&self.shared);
        // The turn goes with the work: a caller that is gone does not free it sooner.
        let work = move || {
            let _held = (share, place, turn);
            work(&shared)
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)?
    }
}

impl Shared {
    fn hash(&self, password: &Secret) -> Result<String> {
        let mut salt = [0_u8; SALT];
        getrandom::fill(&mut salt).map_err(Error::internal)?;
        let params = params()?;
        let mut hash = [0_u8; HASH];
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
        self.fill(&argon2, password, &salt, &mut hash)?;
        written(&params, &salt, &hash)
    }

    fn matches(&self, password: &Secret, hash: &str) -> Result<bool> {
        if password.expose().len() > MAX_PASSWORD {
            return Ok(false);
        }
        let stored = PasswordHash::new(hash).map_err(failed)?;
        let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else {
            return Err(Error::internal("a password's hash is not whole"));
        };
        let algorithm = Algorithm::try_from(stored.algorithm).map_err(failed)?;
        let version = stored.version.map(Version::try_from).transpose().map_err(failed)?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, Params::try_from(&stored).map_err(failed)?);
        let mut salted = [0_u8; argon2::password_hash::Salt::MAX_LENGTH];
        let salt = salt.decode_b64(&mut salted).map_err(failed)?;
        let mut found = vec![0_u8; expected.len()];
        self.fill(&argon2, password, salt, &mut found)?;
        // Compares in constant time.
        Ok(Output::new(&found).map_err(failed)? == expected)
    }

    fn fill(&self, argon2: &Argon2<'_>, password: &Secret, salt: &[u8], hash: &mut [u8]) -> Result<()> {
        let kept = self.memory.lock().pop();
        let mut memory = kept.unwrap_or_else(|| Vec::with_capacity(RESERVED));
        memory.resize(argon2.params().block_count().max(memory.len()), Block::default());
        let filled =
            argon2.hash_password_into_with_memory(password.expose().as_bytes(), salt, hash, &mut memory);
        // The first block is a quick hash of the password: an attacker who found it could guess without all the work.
        // What follows uses the memory, so the compiler leaves nothing of this out.
        memory.fill(Block::default());
        self.memory.lock().push(memory);
        filled.map_err(failed)
    }
}

fn params() -> Result<Params> {
    Params::new(MEMORY, PASSES, LANES, Some(HASH)).map_err(failed)
}

/// The hash in the form in which it is kept.
fn written(params: &Params, salt: &[u8], hash: &[u8]) -> Result<String> {
    let salt = SaltString::encode_b64(salt).map_err(failed)?;
    let whole = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: params.try_into().map_err(failed)?,
        salt: Some(salt.as_salt()),
        hash: Some(Output::new(hash).map_err(failed)?),
    };
    Ok(whole.to_string())
}

fn check_length(password: &Secret) -> Result<()> {
    if (MIN_PASSWORD..=MAX_PASSWORD).contains(&password.expose().len()) {
        return Ok(());
    }
    Err(Error::invalid("password", format!("it must have {MIN_PASSWORD} to {MAX_PASSWORD} bytes")))
}

fn busy() -> Error {
    Error::Busy("too many passwords are being checked; try again in a few seconds".into())
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn failed(why: impl ToString) -> Error {
    Error::internal(why.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use argon2::password_hash::{PasswordHasher as _, SaltString};
    use argon2::{Algorithm, Argon2, Params, Version};
    use futures_util::future::join_all;

    use super::{Hasher, Line, MAX_PASSWORD, params};
    use crate::base::Error;
    use crate::base::ids::UserId;
    use crate::base::secret::Secret;

    fn password() -> Secret {
        Secret::new("correct horse")
    }

    #[tokio::test]
    async fn a_password_matches_only_its_own_hash() {
        let hasher = Hasher::new().unwrap();
        let stored = hasher.hash_now(&password()).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        let again = hasher.hash(Line::Known, password()).await.unwrap();
        assert_ne!(stored, again, "each hash has its own salt");
        for hash in [&stored, &again] {
            let matches = async |text: &str| {
                hasher.matches(Line::Strangers, Secret::new(text), Some(hash.clone())).await.unwrap()
            };
            // Uses memory that an earlier hash has filled.
            assert!(matches("correct horse").await && !matches("correct horsf").await, "{hash}");
        }
    }

    #[tokio::test]
    async fn a_hash_of_long_ago_is_still_matched() {
        let hasher = Hasher::new().unwrap();
        let salt = SaltString::encode_b64(b"sixteen bytes it").unwrap();
        // Hashes of the first version's parameters, and of others.
        for params in [params().unwrap(), Params::new(64, 1, 2, Some(16)).unwrap()] {
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let kept = Some(argon2.hash_password(b"correct horse", &salt).unwrap().to_string());
            assert!(hasher.matches(Line::Known, password(), kept.clone()).await.unwrap());
            assert!(!hasher.matches(Line::Known, Secret::new("correct"), kept).await.unwrap());
        }
        let broken = hasher.matches(Line::Known, password(), Some("$argon2id$".into())).await;
        assert!(matches!(broken, Err(Error::Internal(_))), "{broken:?}");
    }

    #[tokio::test]
    async fn passwords_that_are_too_short_or_too_long_are_refused() {
        let hasher = Hasher::new().unwrap();
        for text in ["1234567".to_owned(), "a".repeat(MAX_PASSWORD + 1)] {
            assert!(hasher.hash_now(&Secret::new(text.clone())).is_err());
            assert!(hasher.hash(Line::Known, Secret::new(text)).await.is_err());
        }
    }

    #[tokio::test]
    async fn nobody_has_the_password_of_an_account_that_does_not_exist() {
        let hasher = Hasher::with_turns(1, 1).unwrap();
        let known = hasher.hash_now(&password()).unwrap();
        assert!(hasher.matches(Line::Known, password(), Some(known)).await.unwrap());
        assert!(!hasher.matches(Line::Known, password(), None).await.unwrap());
    }

    #[tokio::test]
    async fn who_finds_no_place_to_wait_is_told_at_once() {
        let hasher = Hasher::with_turns(1, 1).unwrap();
        // No attempt gets a turn before all have asked.
        let held = Arc::clone(&hasher.shared.turns).acquire_owned().await.unwrap();
        let answers = join_all((0..8).map(|_| hasher.matches(Line::Strangers, password(), None)));
        let (answers, ()) = tokio::join!(answers, async { drop(held) });
        let busy = answers.iter().filter(|answer| matches!(answer, Err(Error::Busy(_)))).count();
        assert_eq!(busy, 6, "one turn and one place to wait: {answers:?}");
    }

    #[tokio::test]
    async fn one_admins_new_passwords_leave_the_others_their_places_and_turns() {
        let hasher = Hasher::with_turns(2, 1).unwrap();
        let [one, other] = [UserId::random(), UserId::random()];
        let held = Arc::clone(&hasher.shared.new.at_once).acquire_owned().await.unwrap();
        let crowd = join_all((0..300).map(|_| hasher.hash(Line::New(one), password())));
        let (crowd, ()) = tokio::join!(crowd, async {
            assert!(hasher.matches(Line::Strangers, password(), None).await.is_ok());
            assert!(hasher.shared.admins.take(&one).is_none());
            assert!(hasher.shared.admins.take(&other).is_some());
            hasher.shared.new.at_once.close();
            drop(held);
        });
        let busy = crowd.iter().filter(|answer| matches!(answer, Err(Error::Busy(_)))).count();
        assert_eq!(busy, 100, "all but the share");
    }

    #[tokio::test]
    async fn memory_is_kept_for_the_next_and_given_back_when_nobody_comes() {
        let hasher = Hasher::with_turns(2, 10).unwrap();
        join_all((0..6).map(|_| hasher.matches(Line::Known, password(), None))).await;
        {
            let memory = hasher.shared.memory.lock();
            assert!((1..=2).contains(&memory.len()));
            let is_wiped = |block: &argon2::Block| block.as_ref().iter().all(|word| *word == 0);
            assert!(memory.iter().flatten().all(is_wiped), "nothing of a password is left in it");
        }
        hasher.tidy();
        assert_eq!(hasher.shared.memory.lock().len(), 0);
    }
}
