//! The log over a store, with a clock that the tests set.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Audit, Outcome, Retention, Search};
use crate::access::caller::{Caller, Credential, Origin, Role};
use crate::base::clock::Clock;
use crate::base::ids::UserId;
use crate::base::{Error, Result};
use crate::store::{Store, Table};

const THINGS: Table<String> = Table::new("NAME_TO_THING");

fn caller(role: Role) -> Caller {
    Caller {
        user: UserId::random(),
        email: format!("{}@lab", role.as_str()),
        role,
        domain: "default".into(),
        access_key: "AK".into(),
        origin: Origin {
            credential: Credential::Keypair("AK".into()),
            address: Some([10, 1, 2, 3].into()),
            ..Origin::default()
        },
    }
}

/// A log, its store, the seconds on its clock, and the directory of the store.
fn log(retention: Retention) -> (Audit, Store, Arc<AtomicI64>, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let seconds = Arc::new(AtomicI64::new(1_000_000_000));
    let (day, steady, start) = (Arc::clone(&seconds), Arc::clone(&seconds), Instant::now());
    let clock = Clock::new(move || Timestamp::from_second(day.load(Ordering::Relaxed)).unwrap()).with_steady(
        move || {
            let passed = steady.load(Ordering::Relaxed) - 1_000_000_000;
            start + Duration::from_secs(u64::try_from(passed).unwrap_or_default())
        },
    );
    (Audit::load(&store, clock, retention).unwrap(), store, seconds, directory)
}

async fn put(audit: &Audit, by: &Caller, name: &'static str) -> Result<()> {
    audit
        .superadmin(by, "put_thing", name, |deed| async move {
            deed.write(move |w| {
                w.put(&THINGS, name, &String::new())?;
                if name == "bad" { Err(Error::invalid("name", "bad")) } else { Ok(()) }
            })
            .await
        })
        .await
}

async fn rows(audit: &Audit, search: Search) -> Vec<super::Entry> {
    audit.search(&caller(Role::Superadmin), search, 1_000).await.unwrap().0
}

#[tokio::test]
async fn what_is_done_denied_and_failed_has_one_row_each_and_only_the_first_changes_anything() {
    let (audit, store, _, _directory) = log(Retention::default());
    let (admin, user) = (caller(Role::Superadmin), caller(Role::User));
    put(&audit, &admin, "good").await.unwrap();
    assert!(matches!(put(&audit, &user, "foreign").await, Err(Error::Denied(_))));
    assert!(put(&audit, &admin, "bad").await.is_err());
    let mut reader = caller(Role::Superadmin);
    reader.origin.read_only = true;
    let refused = put(&audit, &reader, "unwritten").await.unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");

    let rows = rows(&audit, Search::default()).await;
    let told: Vec<_> = rows.iter().map(|row| (row.number, row.target.as_str(), row.outcome)).collect();
    assert_eq!(
        told,
        [
            (4, "unwritten", Outcome::Denied),
            (3, "bad", Outcome::Failed),
            (2, "foreign", Outcome::Denied),
            (1, "good", Outcome::Done),
        ]
    );
    let done = rows.last().unwrap();
    assert_eq!((done.email.as_str(), done.credential.as_str()), ("superadmin@lab", "keypair AK"));
    assert_eq!(done.address.unwrap().to_string(), "10.1.2.3");
    assert_eq!(rows.iter().find(|row| row.number == 3).unwrap().reason.as_deref(), Some("name: bad"));
    let kept = |name| store.read_now(|r| r.find(&THINGS, name)).unwrap().is_some();
    assert_eq!(["good", "foreign", "bad", "unwritten"].map(kept), [true, false, false, false]);
}

#[tokio::test]
async fn what_writes_nothing_has_a_row_too() {
    let (audit, _, _, _directory) = log(Retention::default());
    audit.superadmin(&caller(Role::Superadmin), "try", "x", |_| async { Ok(()) }).await.unwrap();
    assert_eq!(rows(&audit, Search::default()).await.len(), 1);
}

#[tokio::test]
async fn a_moment_years_ahead_takes_no_row_away() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (ahead, passed, start) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)), Instant::now());
    let (jump, day, steady) = (Arc::clone(&ahead), Arc::clone(&passed), Arc::clone(&passed));
    let clock = Clock::new(move || {
        let shown = day.load(Ordering::Relaxed) + jump.load(Ordering::Relaxed);
        Timestamp::from_second(1_000_000_000 + shown).unwrap()
    })
    .with_steady(move || start + Duration::from_secs(steady.load(Ordering::Relaxed).unsigned_abs()));
    let audit = Audit::load(&store, clock, Retention::default()).unwrap();
    let count = async || {
        put(&audit, &caller(Role::Superadmin), "another").await.unwrap();
        rows(&audit, Search::default()).await.len()
    };
    assert_eq!(count().await, 1);
    for years in [10, 0, -10, 0] {
        ahead.store(years * 365 * 86_400, Ordering::Relaxed);
        passed.fetch_add(300, Ordering::Relaxed);
        count().await;
    }
    assert_eq!(count().await, 6);
    passed.fetch_add(366 * 86_400, Ordering::Relaxed);
    assert_eq!(count().await, 1, "they are old, those too that were written by a wrong clock");
}

#[tokio::test]
async fn old_rows_go_by_count_and_by_age() {
    let (audit, _, seconds, _directory) = log(Retention::new(2, 5));
    let admin = caller(Role::Superadmin);
    for _ in 0..20 {
        put(&audit, &admin, "thing").await.unwrap();
    }
    let numbers = |rows: Vec<super::Entry>| rows.iter().map(|row| row.number).collect::<Vec<_>>();
    assert_eq!(numbers(rows(&audit, Search::default()).await), [20, 19, 18, 17, 16]);
    seconds.fetch_add(3 * 24 * 3600, Ordering::Relaxed);
    put(&audit, &admin, "thing").await.unwrap();
    assert_eq!(numbers(rows(&audit, Search::default()).await), [21]);
}

#[tokio::test]
async fn a_search_finds_by_every_criterion_and_goes_on_page_by_page() {
    let (audit, _, seconds, _directory) = log(Retention::default());
    let (admin, user) = (caller(Role::Superadmin), caller(Role::User));
    for name in ["one", "two", "three"] {
        put(&audit, &admin, name).await.unwrap();
        seconds.fetch_add(60, Ordering::Relaxed);
    }
    let _ = put(&audit, &user, "four").await;
    let found = async |search: Search| -> Vec<String> {
        rows(&audit, search).await.into_iter().map(|row| row.target).collect()
    };
    let at = |seconds: i64| Some(Timestamp::from_second(1_000_000_000 + seconds).unwrap());
    let any = Search::default;
    assert_eq!(found(Search { user: Some("USER@lab".into()), ..any() }).await, ["four"]);
    assert_eq!(found(Search { user: Some(admin.user.to_string()), ..any() }).await.len(), 3);
    assert_eq!(found(Search { target: Some("o".into()), ..any() }).await, ["four", "two", "one"]);
    assert_eq!(found(Search { outcome: Some(Outcome::Denied), ..any() }).await, ["four"]);
    assert_eq!(found(Search { since: at(60), until: at(180), ..any() }).await, ["three", "two"]);
    assert!(found(Search { action: Some("put".into()), ..any() }).await.is_empty());

    let reader = caller(Role::Superadmin);
    let (first, more) = audit.search(&reader, any(), 3).await.unwrap();
    assert!(more && first.len() == 3);
    let rest = Search { before: Some(first[2].number), ..any() };
    let (rest, more) = audit.search(&reader, rest, 3).await.unwrap();
    assert!(!more && rest.len() == 1 && rest[0].target == "one");
    assert!(audit.search(&user, any(), 3).await.is_err());
}

fn named(email: &str) -> Caller {
    Caller { email: email.into(), ..caller(Role::User) }
}

async fn done(audit: &Audit, by: &Caller, target: &str) {
    audit.perform(by, "create_api_token", target, |_| async { Ok(()) }).await.unwrap();
}

/// How many rows this user has, and how many deeds they count.
async fn of(audit: &Audit, by: &Caller) -> (usize, u64) {
    let rows = rows(audit, Search { user: Some(by.user.to_string()), ..Search::default() }).await;
    (rows.len(), rows.iter().map(|row| row.count).sum())
}

#[tokio::test]
async fn refusals_that_are_like_one_another_are_counted_in_one_row() {
    let (audit, store, seconds, _directory) = log(Retention::default());
    let (ann, bob) = (named("ann@lab"), named("bob@lab"));
    for number in 0..500 {
        let target = format!("image-{number}");
        let tried: Result<()> = audit.superadmin(&ann, "put_thing", &target, |_| async { Ok(()) }).await;
        assert!(matches!(tried, Err(Error::Denied(_))));
        seconds.fetch_add(1, Ordering::Relaxed);
    }
    let kept = rows(&audit, Search::default()).await;
    let told: Vec<_> = kept.iter().map(|row| (row.count, row.target.as_str(), row.other_targets)).collect();
    assert_eq!(told, [(500, "image-0", true)]);
    assert_eq!(kept[0].last_at().duration_since(kept[0].at).as_secs(), 499);
    // Another action, another reason and another person each get another row.
    for by in [&ann, &bob] {
        let _ = audit.superadmin(by, "take_thing", "x", |_| async { Ok(()) }).await;
        let missing = Err::<(), _>(Error::missing("thing", "x"));
        let _ = audit.perform(by, "take_thing", "x", |_| async { missing }).await;
    }
    assert_eq!(rows(&audit, Search::default()).await.len(), 5);
    assert_eq!((of(&audit, &ann).await, of(&audit, &bob).await), ((3, 502), (2, 2)));
    // A row that began before the searched time and went on in it is found.
    let since = Some(kept[0].last_at());
    let late = Search { since, action: Some("put_thing".into()), ..Search::default() };
    assert_eq!(rows(&audit, late).await.len(), 1);
    // It is in the file, and a log that is opened again begins rows of its own.
    let again = Audit::load(&store, Clock::system(), Retention::new(36_500, 1_000)).unwrap();
    let _ = again.superadmin(&ann, "put_thing", "x", |_| async { Ok(()) }).await;
    assert_eq!(of(&again, &ann).await, (4, 503));
}

#[tokio::test]
async fn the_first_refusal_is_in_the_file_at_once_and_the_others_soon() {
    let (audit, store, _, _directory) = log(Retention::default());
    let ann = named("ann@lab");
    let in_the_file = || {
        let mut rows: Vec<super::Entry> = Vec::new();
        let read = store.read_now(|r| {
            r.scan(&super::ENTRIES, [], |_, row| {
                rows.push(row);
                Ok(())
            })
        });
        read.unwrap();
        (rows.len(), rows.iter().map(|row| row.count).sum::<u64>())
    };
    for _ in 0..10 {
        let _ = audit.superadmin(&ann, "put_thing", "x", |_| async { Ok(()) }).await;
    }
    assert_eq!(in_the_file(), (1, 1), "one write for ten");
    audit.save().await.unwrap();
    assert_eq!(in_the_file(), (1, 10));
    for number in 0..100 {
        let _ = audit.superadmin(&ann, &format!("action-{number}"), "x", |_| async { Ok(()) }).await;
    }
    assert!(in_the_file().0 < 10, "who is refused in ever new ways waits for the others, too");
    audit.save().await.unwrap();
    assert_eq!(in_the_file(), (101, 110));
}

#[tokio::test]
async fn nobodys_flood_pushes_out_what_others_did() {
    let (audit, store, seconds, _directory) = log(Retention::new(365, 500));
    let (ann, bob, eve) = (named("ann@lab"), named("bob@lab"), named("eve@lab"));
    for number in 0..350 {
        done(&audit, &ann, &number.to_string()).await;
        seconds.fetch_add(60, Ordering::Relaxed);
    }
    for number in 0..25 {
        done(&audit, &bob, &number.to_string()).await;
    }
    seconds.fetch_add(7 * 24 * 3600, Ordering::Relaxed);
    for number in 0..600 {
        done(&audit, &eve, &number.to_string()).await;
    }
    assert_eq!(of(&audit, &bob).await, (25, 25));
    let (anns, _) = of(&audit, &ann).await;
    assert!(anns >= 350 - 5, "{anns}: one part in a hundred a day is all that a flood takes");
    let (eves, _) = of(&audit, &eve).await;
    assert_eq!(anns + 25 + eves, 500);
    // All clients that have proved nothing are one share, whatever their addresses, and the loudest address loses rows.
    let quiet = [192, 0, 2, 1];
    let failed = |email: String, address: [u8; 4]| {
        let (audit, failed) = (audit.clone(), Err(Error::Unauthenticated));
        let write = move |w: &mut super::Writer| {
            audit.note(w, &email, None, Some(address.into()), "sign_in", &failed)
        };
        store.write_now(write).unwrap();
    };
    failed("quiet@lab".into(), quiet);
    for number in 0..300_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        failed(format!("u{number}@lab"), if number < 100 { [10, 0, high, low] } else { [10, 9, 9, 9] });
    }
    assert_eq!(of(&audit, &bob).await, (25, 25));
    assert!(of(&audit, &ann).await.0 >= anns - 5);
    // A user who is new in a full log gets rows, too.
    let new = named("new@lab");
    for number in 0..5 {
        done(&audit, &new, &number.to_string()).await;
    }
    assert_eq!(of(&audit, &new).await, (5, 5));
}

#[tokio::test]
async fn a_log_without_shares_is_counted_once() {
    let (audit, store, _, _directory) = log(Retention::new(365, 100));
    let (ann, eve) = (named("ann@lab"), named("eve@lab"));
    for _ in 0..20 {
        done(&audit, &ann, "x").await;
    }
    // Leaves the store as a version without shares would.
    let forget = |w: &mut super::Writer| {
        for number in 5..=15_u64 {
            w.remove(&Table::<()>::new("AUDIT_NUMBER_TO_SHARE"), number.to_be_bytes())?;
        }
        Ok(())
    };
    store.write_now(forget).unwrap();
    for _ in 0..2 {
        let audit = Audit::load(&store, Clock::system(), Retention::new(36_500, 100)).unwrap();
        for _ in 0..100 {
            done(&audit, &eve, "x").await;
        }
        assert_eq!(of(&audit, &ann).await, (20, 20));
    }
}

#[tokio::test]
async fn a_write_that_comes_to_nothing_takes_its_row_along() {
    let (audit, store, _, _directory) = log(Retention::new(365, 10));
    let ann = named("ann@lab");
    for _ in 0..3 {
        let noted = store.write_now(|w| {
            audit.note(w, "ann@lab", Some(ann.user), None, "sign_in", &Ok(()))?;
            Err::<(), _>(Error::Unauthenticated)
        });
        assert!(noted.is_err());
    }
    for _ in 0..10 {
        done(&audit, &ann, "x").await;
    }
    assert_eq!(rows(&audit, Search::default()).await.len(), 10);
    assert_eq!(audit.shares.lock().count(), 10);
}
