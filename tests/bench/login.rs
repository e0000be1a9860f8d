//! The cost of signing in: the hash of the password, and little else.

use std::time::{Duration, Instant};

use wharf::access::hasher::{Hasher, Line};
use wharf::base::secret::Secret;

use super::report::{check, heading, median, milliseconds, note};
use super::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};
use super::support::visitor::Visitor;

const ROUNDS: usize = 31;

pub async fn measure() {
    heading("login: POST /server/login, beside one argon2id hash, by turns");
    let app = App::start().await;
    let turns = Hasher::new().expect("a hasher");
    let hash = turns.hash_now(&Secret::new(ADMIN_PASSWORD)).expect("a hash");
    let (mut hashes, mut logins) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        hashes.push(one_hash(&turns, &hash).await);
        logins.push(one_login(&app).await);
    }
    let (hash, login) = (median(&hashes), median(&logins));
    note("one hash", &milliseconds(hash));
    note("one login, with its commit and its connection", &milliseconds(login));
    check("login / hash", login.as_secs_f64() / hash.as_secs_f64(), 1.5, "");
}

async fn one_hash(hasher: &Hasher, hash: &str) -> Duration {
    let started = Instant::now();
    let matches = hasher.matches(Line::Known, Secret::new(ADMIN_PASSWORD), Some(hash.to_owned()));
    assert!(matches.await.expect("a hash"));
    started.elapsed()
}

async fn one_login(app: &App) -> Duration {
    let call = Visitor::of(app).signing_in(ADMIN_EMAIL, ADMIN_PASSWORD);
    let started = Instant::now();
    let reply = call.send().await;
    let taken = started.elapsed();
    assert_eq!(reply.json()["authenticated"], true, "{}", reply.text());
    taken
}
