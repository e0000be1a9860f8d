//! Many passwords at once: how much memory they cost, and that all users with the right password get in.

use futures_util::future::join_all;
use serde_json::json;

use crate::guessing::guess_until_refused;
use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::people::PASSWORD;
use crate::support::visitor::Visitor;
use crate::support::wait::{PATIENCE, until};

/// The size of a large class: more people than the failures that one address may have.
const PEOPLE: usize = 64;
/// How many accounts are made at once; if each were hashed at once with 19 MiB, the memory limit would be exceeded.
const MADE_AT_ONCE: usize = 32;
/// Most memory of the server, in bytes: its own, and 19 MiB for each of the four passwords that it hashes at once.
const MOST_MEMORY: u64 = 200 << 20;
/// How many of these bytes may still be in use afterwards.
const LEFT: u64 = 10 << 20;

fn email(n: usize) -> String {
    format!("student{n}@school.invalid")
}

#[tokio::test]
async fn a_class_is_made_and_signs_in_at_once_from_one_address_in_bounded_memory() {
    let app = App::start().await;
    let before = app.own_memory();
    let admin = app.admin();
    let create = async |n: usize| {
        let arguments = format!("email: {:?}, props: {{password: {PASSWORD:?}}}", email(n));
        admin.does("create_user", &arguments).await;
    };
    let beside = async {
        let mut person = Visitor::at(&app, "127.0.0.2");
        person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
        assert!(person.is_signed_in().await, "nobody is kept waiting by those who make accounts");
    };
    tokio::join!(join_all((0..MADE_AT_ONCE).map(create)), beside);
    join_all((MADE_AT_ONCE..PEOPLE).map(create)).await;
    assert!(app.peak_memory() < MOST_MEMORY, "{} bytes", app.peak_memory());

    let sign_in = async |n: usize| Visitor::of(&app).sign_in(&email(n), PASSWORD).await;
    for reply in join_all((0..PEOPLE).map(sign_in)).await {
        assert_eq!((reply.status, &reply.json()["authenticated"]), (200, &json!(true)), "{}", reply.text());
    }
    assert!(app.peak_memory() < MOST_MEMORY, "{} bytes", app.peak_memory());

    // With no more sign-ins, the memory that they took goes back to the system.
    until("the memory to be given back", 2 * PATIENCE, async || {
        (app.own_memory() < before + LEFT).then_some(())
    })
    .await;

    // Users with the right password do not increase the number of wrong attempts that are allowed.
    let looked_at = guess_until_refused(&Visitor::of(&app), |n| format!("guess{n}@school.invalid")).await;
    assert!((50..=60).contains(&looked_at), "{looked_at}");
}
