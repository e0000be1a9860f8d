//! Guessing passwords: what it costs the attacker, and that it costs the account's owner nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::rude::Rude;
use crate::support::sign::Keypair;
use crate::support::visitor::Visitor;
use crate::support::wait::{PATIENCE, until};

const WRONG: &str = "a wrong password";

/// Returns how many seconds a refused attempt is told to wait.
fn wait(reply: &Reply) -> u64 {
    reply.problem(429, "too-many-requests");
    reply.header("retry-after").and_then(|seconds| seconds.parse().ok()).expect("Retry-After in seconds")
}

async fn is_let_in(mut person: Visitor) -> bool {
    person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    person.cookie.is_some()
}

/// Guesses from there at this account until a guess is refused unchecked; returns how many were checked.
pub async fn guess_until_refused(person: &Visitor, email: impl Fn(usize) -> String) -> usize {
    for guesses in 0..200 {
        let reply = person.signing_in(&email(guesses), WRONG).send().await;
        if reply.status == 429 {
            return guesses;
        }
        assert_eq!(reply.json()["authenticated"], false);
    }
    panic!("200 guesses, and all were looked at");
}

/// Guesses whenever allowed until the wait is this long; returns how many guesses were checked.
pub async fn guess_until_waiting(person: &Visitor, email: impl Fn(usize) -> String, seconds: u64) -> usize {
    let mut looked_at = 0;
    loop {
        let reply = person.signing_in(&email(looked_at), WRONG).send().await;
        if reply.status != 429 {
            looked_at += 1;
            assert!(looked_at < 200, "200 guesses, and all were looked at");
        } else if wait(&reply) < seconds {
            tokio::time::sleep(Duration::from_secs(wait(&reply))).await;
        } else {
            return looked_at;
        }
    }
}

/// Returns how many attempts a row of the audit log stands for.
fn times(row: &Value) -> usize {
    usize::try_from(row["count"].as_u64().unwrap()).unwrap()
}

#[tokio::test]
async fn whoever_guesses_waits_and_the_owner_elsewhere_does_not() {
    let mut app = App::start().await;
    assert!(is_let_in(Visitor::at(&app, "127.0.0.2")).await, "the owner has been here before");
    let guesser = Visitor::of(&app);
    let looked_at = guess_until_waiting(&guesser, |_| ADMIN_EMAIL.to_owned(), 3).await;
    let reply = guesser.signing_in(ADMIN_EMAIL, ADMIN_PASSWORD).send().await;
    assert!(wait(&reply) <= 8, "even the right one is not looked at");

    app.kill9();
    app.restart().await;
    let reply = guesser.signing_in(ADMIN_EMAIL, ADMIN_PASSWORD).send().await;
    assert!(reply.status == 429 || reply.json()["authenticated"] == true, "{}", reply.text());
    let _ = guesser.signing_in(ADMIN_EMAIL, WRONG).send().await;
    assert!(is_let_in(Visitor::at(&app, "127.0.0.2")).await, "the owner is not kept out");
    let rows =
        app.admin().ask("{ audit_log(action: \"sign_in\") { items { outcome count } } }", json!({})).await;
    let denied =
        rows["audit_log"]["items"].as_array().unwrap().iter().filter(|row| row["outcome"] == "DENIED");
    let denied: usize = denied.map(times).sum();
    assert!((looked_at..=looked_at + 1).contains(&denied), "what was not looked at fills no log: {rows}");
}

#[tokio::test]
async fn the_wait_doubles_and_is_kept_over_a_crash() {
    let mut app = App::start().await;
    let guesser = Visitor::of(&app);
    let looked_at = guess_until_waiting(&guesser, |_| "somebody@test.invalid".to_owned(), 10).await;
    // Five guesses are free; then the waits are 1, 2, 4, 8 and 16 seconds, and 32 if 16 were half over.
    assert!((9..=10).contains(&looked_at), "{looked_at}");
    app.kill9();
    app.restart().await;
    let reply = guesser.signing_in("somebody@test.invalid", WRONG).send().await;
    assert!((1..=32).contains(&wait(&reply)), "{}", reply.text());
}

#[tokio::test]
async fn many_accounts_from_one_address_are_guessed_no_better() {
    let app = App::start().await;
    let guesser = Visitor::of(&app);
    let looked_at = guess_until_waiting(&guesser, |n| format!("user{n}@test.invalid"), 3).await;
    assert!((52..=55).contains(&looked_at), "{looked_at}");
    wait(&guesser.signing_in("another@test.invalid", WRONG).send().await);
    assert!(is_let_in(Visitor::at(&app, "127.0.0.2")).await, "who is elsewhere is not held to it");
}

#[tokio::test]
async fn many_addresses_guess_one_account_no_better() {
    let app = App::start().await;
    assert!(is_let_in(Visitor::at(&app, "127.0.0.2")).await);
    let mut looked_at = 0;
    for last in 10..60 {
        let guesser = Visitor::at(&app, &format!("127.0.0.{last}"));
        let reply = guesser.signing_in(ADMIN_EMAIL, WRONG).send().await;
        if reply.status == 429 {
            wait(&reply);
            break;
        }
        looked_at += 1;
    }
    assert!((20..=23).contains(&looked_at), "{looked_at}");
    assert!(is_let_in(Visitor::at(&app, "127.0.0.2")).await, "the owner, where they have been before");
}

#[tokio::test]
async fn an_account_that_does_not_exist_is_held_to_the_same() {
    let app = App::start().await;
    let [known, unknown] = [ADMIN_EMAIL, "nobody@test.invalid"];
    let mut counts = Vec::new();
    for (address, email) in [("127.0.0.4", known), ("127.0.0.5", unknown)] {
        counts.push(guess_until_refused(&Visitor::at(&app, address), |_| email.to_owned()).await);
    }
    // After the fifth guess the wait is a second, which may be over when the next one comes.
    assert!(counts.iter().all(|count| (5..=7).contains(count)), "{counts:?}");
}

#[tokio::test]
async fn an_account_that_does_not_exist_takes_as_long() {
    let app = App::start().await;
    let mut times = [Vec::new(), Vec::new()];
    // Each from its own address, so that none has to wait; in turn, so that a busy machine slows both.
    for round in 0..8 {
        for (which, email) in [ADMIN_EMAIL, "nobody@test.invalid"].into_iter().enumerate() {
            let person = Visitor::at(&app, &format!("127.0.{which}.{}", 10 + round));
            let started = Instant::now();
            person.signing_in(email, WRONG).send().await;
            times[which].push(started.elapsed());
        }
    }
    let [known, unknown] = times.map(|times| times.into_iter().min().unwrap());
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.4..2.5).contains(&ratio), "known {known:?}, unknown {unknown:?}");
}

#[tokio::test]
async fn guesses_that_come_all_at_once_are_counted_too() {
    let app = App::start().await;
    let guesser = Visitor::of(&app);
    let replies = join_all((0..40).map(|_| guesser.signing_in(ADMIN_EMAIL, WRONG).send())).await;
    let looked_at = replies.iter().filter(|reply| reply.status == 200).count();
    // Five, and any that came when the wait after the fifth was over.
    assert!(looked_at <= 7, "{looked_at} of 40 were looked at");
}

#[tokio::test]
async fn a_guess_whose_client_hangs_up_is_counted_too() {
    let app = App::start().await;
    for _ in 0..4 {
        let guess = Rude::sign_in(&app, ADMIN_EMAIL, WRONG).await;
        guess.be_read().await;
        guess.break_off();
    }
    until("all guesses to be in the audit log", PATIENCE, async || {
        let query = "{ audit_log(action: \"sign_in\") { items { outcome count } } }";
        let rows = app.admin().ask(query, json!({})).await;
        let rows = rows["audit_log"]["items"].as_array().unwrap();
        let counted: usize = rows.iter().filter(|row| row["outcome"] == "DENIED").map(times).sum();
        (counted == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_right_password_makes_the_address_forget_its_wrong_ones() {
    let app = App::start().await;
    let mut person = Visitor::of(&app);
    for _ in 0..3 {
        for _ in 0..4 {
            person.signing_in(ADMIN_EMAIL, WRONG).send().await;
        }
        person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
        assert!(person.is_signed_in().await);
    }
}

#[tokio::test]
async fn keypairs_are_never_kept_out() {
    let app = App::start().await;
    let guesser = Visitor::of(&app);
    guess_until_refused(&guesser, |_| ADMIN_EMAIL.to_owned()).await;
    for _ in 0..100 {
        let forger = Api::new(app.url(), Some(Keypair::new("AKIATESTTESTTESTTEST", "a wrong secret key")));
        forger.call("GET", "/events/background-task?task_id=0").send().await.problem(401, "auth-failed");
    }
    app.admin().ask("{ __typename }", json!({})).await;
}

#[tokio::test]
async fn what_is_too_long_to_be_a_password_is_refused_unread() {
    let app = App::start().await;
    let person = Visitor::of(&app);
    let mebibyte = "x".repeat(1 << 20);
    let reply = person.signing_in(ADMIN_EMAIL, &mebibyte).send().await;
    reply.problem(413, "content-too-large");
    let msg =
        person.signing_in(ADMIN_EMAIL, &mebibyte[..1025]).send().await.problem(400, "invalid-api-params");
    assert!(msg.contains("1024"), "{msg}");
    let msg = person.signing_in(&mebibyte[..255], WRONG).send().await.problem(400, "invalid-api-params");
    assert!(msg.contains("254"), "{msg}");
    for body in ["", "[]", "{\"username\": \"a\"}", "{\"username\": 1, \"password\": \"b\"}", "null"] {
        let call = person.call("POST", "/server/login").content_type("application/json").body(body);
        call.send().await.problem(400, "generic-bad-request");
    }
}

#[tokio::test]
async fn many_who_sign_in_at_once_do_not_hold_up_the_rest() {
    let app = App::start().await;
    let people = (0..60).map(|last| Visitor::at(&app, &format!("127.0.1.{}", last + 1)));
    let sign_in = |mut person: Visitor| async move { person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await };
    let crowd = tokio::spawn(join_all(people.map(sign_in)));
    let (anybody, mut slowest) = (app.anonymous(), Duration::ZERO);
    let mut asked = 0;
    while !crowd.is_finished() {
        let started = Instant::now();
        assert_eq!(anybody.call("GET", "/healthz").send().await.status, 200);
        slowest = slowest.max(started.elapsed());
        asked += 1;
    }
    assert!(asked > 3, "{asked}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    for reply in crowd.await.unwrap() {
        // Correct passwords wait for each other, and do not count as wrong ones.
        assert!(reply.status == 200 && reply.json()["authenticated"] == true, "{}", reply.text());
    }
}
