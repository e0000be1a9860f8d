//! Signing in with a password: the session, its cookie, and how it ends.

use std::time::Duration;

use serde_json::json;

use crate::guessing::guess_until_waiting;
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::people::PASSWORD;
use crate::support::process::run_fed;
use crate::support::visitor::{PLAIN, SECURE, Visitor};
use crate::support::wait::{PATIENCE, until};

const ANOTHER: &str = "another planted password";

#[tokio::test]
async fn a_password_opens_a_session_that_asks_and_follows() {
    let app = App::start().await;
    let mut person = Visitor::of(&app);
    assert!(!person.is_signed_in().await);
    let reply = person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["authenticated"], true);
    assert_eq!(body["data"]["access_key"], ADMIN_ACCESS_KEY);
    assert_eq!(body["data"]["role"], "superadmin");
    let cookie = reply.header("set-cookie").expect("a cookie").to_owned();
    for part in [&format!("{PLAIN}="), "; Path=/", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{part} is missing in {cookie}");
    }
    assert!(!cookie.contains("Secure"), "a browser would drop it without TLS: {cookie}");
    assert!(person.is_signed_in().await);
    let data = person.ask("{ sessions { created_at last_seen address current } }", json!({})).await;
    let sessions = data["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1, "{data}");
    assert_eq!((&sessions[0]["address"], &sessions[0]["current"]), (&json!("127.0.0.1"), &json!(true)));
    let stream = person.call("GET", "/events/background-task?task_id=0").no_content_type().send().await;
    stream.problem(404, "generic-not-found");
}

#[tokio::test]
async fn whatever_is_wrong_sounds_the_same() {
    let app = App::start().await;
    let mut answers = Vec::new();
    for (email, password) in [
        (ADMIN_EMAIL, "a wrong password"),
        ("nobody@test.invalid", ADMIN_PASSWORD),
        ("", ""),
        (ADMIN_EMAIL, ""),
        ("a\u{0}b", "c\u{0}d"),
    ] {
        let mut person = Visitor::of(&app);
        let reply = person.sign_in(email, password).await;
        assert_eq!((reply.status, person.cookie), (200, None), "{}", reply.text());
        answers.push(reply.text());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert!(answers[0].contains("\"authenticated\":false"), "{answers:?}");
    let mut person = Visitor::of(&app);
    person.sign_in(&format!(" {} ", ADMIN_EMAIL.to_uppercase()), ADMIN_PASSWORD).await;
    assert!(person.is_signed_in().await, "the case of an address does not count");
}

#[tokio::test]
async fn a_session_that_was_ended_is_good_for_nothing() {
    let app = App::start().await;
    let mut person = Visitor::admin(&app).await;
    let before = person.clone();
    let reply = person.call("POST", "/server/logout").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.header("set-cookie").unwrap().contains("Max-Age=0"));
    person.keep(&reply);
    assert!(!person.is_signed_in().await);
    assert!(!before.is_signed_in().await, "the old cookie");
    assert_eq!(before.call("POST", "/server/logout").send().await.status, 200, "once more does no harm");
}

#[tokio::test]
async fn each_signing_in_makes_a_new_session_in_the_place_of_the_old_one() {
    let app = App::start().await;
    let mut person = Visitor::of(&app);
    // An attacker who planted this cookie must not get a session when the user signs in with it.
    person.cookie = Some(format!("{PLAIN}={}", "A".repeat(43)));
    let planted = person.clone();
    person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert_ne!(person.cookie, planted.cookie);
    assert!(person.is_signed_in().await && !planted.is_signed_in().await);
    let first = person.clone();
    person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert_ne!(person.cookie, first.cookie);
    assert!(person.is_signed_in().await && !first.is_signed_in().await);
}

#[tokio::test]
async fn forged_cookies_are_nobodys() {
    let app = App::start().await;
    let mut person = Visitor::admin(&app).await;
    let real = person.cookie.clone().unwrap();
    let key = real.split_once('=').unwrap().1.to_owned();
    let last = if key.ends_with('a') { "b" } else { "a" };
    for cookie in [
        format!("{PLAIN}="),
        format!("{PLAIN}={}", key.to_lowercase()),
        format!("{PLAIN}={}{last}", &key[..42]),
        format!("{PLAIN}={key}{key}"),
        format!("{PLAIN}={}", "../".repeat(20)),
        format!("{PLAIN}={}", "A".repeat(10_000)),
        format!("{SECURE}={key}"),
        format!("AIOHTTP_SESSION={key}"),
        key.clone(),
    ] {
        person.cookie = Some(cookie);
        assert!(!person.is_signed_in().await, "{:?}", person.cookie);
    }
    person.cookie = Some(format!("a=b; {real}; c=d"));
    assert!(person.is_signed_in().await, "other cookies do not matter");
}

#[tokio::test]
async fn sessions_survive_a_crash_and_keep_their_age() {
    let mut app = App::start_with(|serve| {
        serve.args(["--session-lifetime", "1h"]);
    })
    .await;
    let person = Visitor::admin(&app).await;
    app.kill9();
    app.restart().await;
    assert!(person.is_signed_in().await);
}

#[tokio::test]
async fn a_session_ends_unused_or_at_the_end_of_its_life() {
    for setting in ["--session-idle", "--session-lifetime"] {
        let app = App::start_with(move |serve| {
            serve.args([setting, "5s"]);
        })
        .await;
        let started = std::time::Instant::now();
        let person = Visitor::admin(&app).await;
        if setting == "--session-lifetime" {
            // The session is used all the time.
            let ask = async || person.asking("{ __typename }", &json!({})).send().await.status;
            until("its end", PATIENCE, async || (ask().await == 401).then_some(())).await;
            assert!(started.elapsed() >= Duration::from_secs(5), "{setting}: {:?}", started.elapsed());
        } else {
            let watch = Visitor::admin(&app).await;
            let open = "{ sessions { current } }";
            let gone =
                async || (watch.ask(open, json!({})).await["sessions"].as_array()?.len() == 1).then_some(());
            until("the unused one to end", PATIENCE, gone).await;
            assert!(started.elapsed() >= Duration::from_secs(5), "{setting}: {:?}", started.elapsed());
            assert!(!person.is_signed_in().await && watch.is_signed_in().await);
        }
    }
}

#[tokio::test]
async fn signing_out_everywhere_leaves_no_session_but_the_one_that_is_kept() {
    let app = App::start().await;
    let [one, two, three] =
        [Visitor::admin(&app).await, Visitor::admin(&app).await, Visitor::admin(&app).await];
    let query = "mutation($keep: Boolean!) { sign_out_everywhere(keep_current: $keep) { ok msg } }";
    let data = one.ask(query, json!({"keep": true})).await;
    assert_eq!(data["sign_out_everywhere"], json!({"ok": true, "msg": "2 sessions ended"}));
    assert!(one.is_signed_in().await && !two.is_signed_in().await && !three.is_signed_in().await);
    let data = one.ask(query, json!({"keep": false})).await;
    assert_eq!(data["sign_out_everywhere"]["ok"], true);
    assert!(!one.is_signed_in().await);
    assert_eq!(app.admin().ask("{ sessions { current } }", json!({})).await["sessions"], json!([]));
}

#[tokio::test]
async fn another_password_ends_the_other_sessions() {
    let app = App::start().await;
    let [one, two] = [Visitor::admin(&app).await, Visitor::admin(&app).await];
    let change = |old: &str, new: &str, again: &str| {
        let body = json!({"old_password": old, "new_password": new, "new_password2": again});
        one.call("POST", "/auth/update-password").json(&body).send()
    };
    let msg = change("not the old one", ANOTHER, ANOTHER).await.problem(400, "invalid-api-params");
    assert!(msg.contains("old password"), "{msg}");
    let msg = change(ADMIN_PASSWORD, ANOTHER, "something else").await.problem(400, "invalid-api-params");
    assert!(msg.contains("differ"), "{msg}");
    change(ADMIN_PASSWORD, "short", "short").await.problem(400, "invalid-api-params");
    assert!(two.is_signed_in().await);
    assert_eq!(change(ADMIN_PASSWORD, ANOTHER, ANOTHER).await.status, 200);
    assert!(one.is_signed_in().await && !two.is_signed_in().await);
    let mut person = Visitor::of(&app);
    person.sign_in(ADMIN_EMAIL, ADMIN_PASSWORD).await;
    assert!(!person.is_signed_in().await);
    person.sign_in(ADMIN_EMAIL, ANOTHER).await;
    assert!(person.is_signed_in().await);
}

#[tokio::test]
async fn a_reset_at_the_console_ends_all_sessions_and_all_waiting() {
    let mut app = App::start().await;
    let person = Visitor::admin(&app).await;
    guess_until_waiting(&Visitor::of(&app), |_| ADMIN_EMAIL.to_owned(), 5).await;
    Visitor::of(&app).signing_in(ADMIN_EMAIL, ADMIN_PASSWORD).send().await.problem(429, "too-many-requests");
    app.kill9();
    let data_dir = app.data_dir();
    let reset = ["user", "reset-password", ADMIN_EMAIL, "--password-stdin", "--data-dir"];
    let mut reset = app.launch().wharf(&reset);
    let outcome = run_fed(reset.arg(&data_dir), ANOTHER, app.launch().root(), PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    app.restart().await;
    assert!(!person.is_signed_in().await);
    let mut person = Visitor::of(&app);
    person.sign_in(ADMIN_EMAIL, ANOTHER).await;
    assert!(person.is_signed_in().await);
}

#[tokio::test]
async fn a_person_has_twenty_sessions_at_most() {
    let app = App::start().await;
    let first = Visitor::admin(&app).await;
    let mut last = None;
    for _ in 0..20 {
        last = Some(Visitor::admin(&app).await);
    }
    let last = last.unwrap();
    let data = last.ask("{ sessions { current } }", json!({})).await;
    assert_eq!(data["sessions"].as_array().unwrap().len(), 20);
    assert!(!first.is_signed_in().await && last.is_signed_in().await);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_cookie_is_for_tls_and_the_address_the_clients_own() {
    let app = App::start_with(|serve| {
        serve.args(["--trusted-proxy", "127.0.0.0/8"]);
    })
    .await;
    let mut person = Visitor::of(&app);
    let forwarded = |call: crate::support::api::Call| {
        call.header("X-Forwarded-Proto", "https").header("X-Forwarded-For", "6.6.6.6, 198.51.100.7")
    };
    let reply = forwarded(person.signing_in(ADMIN_EMAIL, ADMIN_PASSWORD)).send().await;
    person.keep(&reply);
    let cookie = reply.header("set-cookie").unwrap();
    assert!(cookie.starts_with(&format!("{SECURE}=")) && cookie.contains("; Secure"), "{cookie}");
    let reply = forwarded(person.asking("{ sessions { address current } }", &json!({}))).send().await;
    assert_eq!(reply.json()["data"]["sessions"], json!([{"address": "198.51.100.7", "current": true}]));
    assert!(!person.is_signed_in().await, "the same cookie without TLS is none");

    let app = App::start().await;
    let person = Visitor::of(&app);
    let reply = forwarded(person.signing_in(ADMIN_EMAIL, ADMIN_PASSWORD)).send().await;
    assert!(reply.header("set-cookie").unwrap().starts_with(&format!("{PLAIN}=")), "nobody is trusted there");
}

#[tokio::test]
async fn who_signs_in_and_who_fails_to_is_in_the_audit_log() {
    let app = App::start().await;
    let person = Visitor::admin(&app).await;
    Visitor::at(&app, "127.0.0.3").sign_in(&ADMIN_EMAIL.to_uppercase(), "a wrong password").await;
    Visitor::at(&app, "127.0.0.4").sign_in("nobody@test.invalid", "a wrong password").await;
    person.call("POST", "/server/logout").send().await;
    let query = "{ audit_log { items { action email outcome address credential } } }";
    let rows = app.admin().ask(query, json!({})).await["audit_log"]["items"].clone();
    let row = |action: &str, email: &str, outcome: &str, address: &str, credential: &str| json!({"action": action, "email": email, "outcome": outcome, "address": address, "credential": credential});
    assert_eq!(
        rows,
        json!([
            row("sign_out", ADMIN_EMAIL, "DONE", "127.0.0.1", "session"),
            // The row does not have the name that was tried, because it may be a password.
            row("sign_in", "(no such account)", "DENIED", "127.0.0.4", "password"),
            row("sign_in", ADMIN_EMAIL, "DENIED", "127.0.0.3", "password"),
            row("sign_in", ADMIN_EMAIL, "DONE", "127.0.0.1", "password"),
        ])
    );
}

#[tokio::test]
async fn whoever_is_switched_off_is_out_at_once_and_what_they_had_stays_dead() {
    let app = App::start().await;
    let admin = app.admin();
    let ann = app.person("ann@lab", "user", "default").await;
    let mut visitor = Visitor::of(&app);
    visitor.sign_in("ann@lab", PASSWORD).await;
    assert!(visitor.is_signed_in().await);
    let query = "mutation { create_api_token(name: \"ci\", scope: \"full\") { token } }";
    let made = ann.api.ask(query, json!({})).await;
    let token = format!("Bearer {}", made["create_api_token"]["token"].as_str().unwrap());
    let with_token = async || {
        let call = app.anonymous().call("POST", "/graphql").json(&json!({ "query": "{ __typename }" }));
        call.header("Authorization", &token).send().await.status
    };
    assert_eq!(with_token().await, 200);
    admin.does("modify_user", "email: \"ann@lab\", props: {status: \"inactive\"}").await;
    assert!(!visitor.is_signed_in().await);
    assert_eq!(with_token().await, 401);
    let reply = visitor.sign_in("ann@lab", PASSWORD).await;
    assert_eq!(reply.json()["authenticated"], false, "nor may they come back");
    admin.does("modify_user", "email: \"ann@lab\", props: {status: \"active\"}").await;
    assert_eq!(with_token().await, 401, "what was revoked is not given back");
    assert!(!visitor.is_signed_in().await);
    let with_keypair = async || {
        let call = ann.api.call("POST", "/graphql").json(&json!({ "query": "{ __typename }" }));
        call.send().await.status
    };
    assert_eq!(with_keypair().await, 401);
    visitor.sign_in("ann@lab", PASSWORD).await;
    assert!(visitor.is_signed_in().await, "the password is known");
    assert_eq!(visitor.ask("{ api_tokens { name } }", json!({})).await["api_tokens"], json!([]));
    admin
        .does("modify_keypair", &format!("access_key: {:?}, props: {{is_active: true}}", ann.access_key))
        .await;
    assert_eq!(with_keypair().await, 200);
}
