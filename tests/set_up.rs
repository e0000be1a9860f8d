//! The first super-admin, created in a browser when no terminal shows the credentials.

use std::process::Command;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::api::{Api, Reply};
use crate::support::app::{ADMIN_ACCESS_KEY, ADMIN_PASSWORD, ADMIN_SECRET_KEY, App, Launch};
use crate::support::process::{Process, read};
use crate::support::sign::Keypair;
use crate::support::visitor::Visitor;
use crate::support::wait::{PATIENCE, until};

/// Returns a server without given credentials, whose stdout is no terminal.
fn bare(arguments: &'static [&'static str]) -> Launch {
    Launch::new(move |command: &mut Command| {
        for name in ["EMAIL", "PASSWORD", "ACCESS_KEY", "SECRET_KEY"] {
            command.env_remove(format!("WHARF_ADMIN_{name}"));
        }
        command.args(arguments);
    })
}

/// Returns the token in the link that the last start logged.
fn token(app: &App) -> String {
    let logs = app.logs();
    let link = logs.rsplit("/setup#token=").next().filter(|rest| rest.len() < logs.len());
    let token: String = link.unwrap_or_default().chars().take_while(|c| !['"', '&'].contains(c)).collect();
    assert!(token.len() >= 32, "{logs}");
    token
}

async fn set_up(app: &App, token: &str, email: &str, password: &str) -> Reply {
    let body = json!({ "token": token, "email": email, "password": password });
    Visitor::of(app).call("POST", "/server/setup").json(&body).send().await
}

async fn is_new(app: &App) -> bool {
    let reply = Visitor::of(app).call("POST", "/server/login-check").json(&json!({})).send().await;
    assert_eq!(reply.json()["authenticated"], false, "{}", reply.text());
    reply.json()["setup"] == true
}

async fn audited(api: &Api) -> Vec<Value> {
    let query = "{ audit_log(action: \"set_up\") { items { email credential outcome count } } }";
    api.ask(query, json!({})).await["audit_log"]["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_link_in_the_log_makes_one_super_admin_and_nothing_else_does() {
    let mut app = bare(&[]).start().await;
    assert!(is_new(&app).await);
    let old = token(&app);
    app.restart().await;
    let now = token(&app);
    assert_ne!(old, now);
    for wrong in [old.as_str(), "", &now[1..], &format!("{now}x")] {
        set_up(&app, wrong, "eve@lab.example", "a password of hers").await.problem(403, "generic-forbidden");
    }
    set_up(&app, &now, "ann@lab.example", "short").await.problem(400, "invalid-api-params");
    set_up(&app, &now, "nobody", "correct horse").await.problem(400, "invalid-api-params");
    let foreign = Visitor::of(&app).call("POST", "/server/setup").header("Origin", "https://evil.example");
    let body = json!({ "token": now, "email": "eve@lab.example", "password": "a password of hers" });
    foreign.json(&body).send().await.problem(403, "generic-forbidden");
    assert!(is_new(&app).await);

    // Several requests at once with the correct link: one of them becomes the super-admin.
    let people = ["ann", "bob", "cem", "dov"].map(|name| format!("{name}@lab.example"));
    let replies = join_all(people.iter().map(|email| set_up(&app, &now, email, "correct horse"))).await;
    let made: Vec<Value> = replies.iter().filter(|reply| reply.status == 200).map(Reply::json).collect();
    assert_eq!(made.len(), 1, "{:?}", replies.iter().map(Reply::text).collect::<Vec<_>>());
    let data = &made[0]["data"];
    let text = |field: &str| data[field].as_str().unwrap().to_owned();
    let admin = Api::new(app.url(), Some(Keypair::new(&text("access_key"), &text("secret_key"))));
    let users = admin.ask("{ users { email role } }", json!({})).await;
    assert_eq!(users["users"], json!([{ "email": text("email"), "role": "superadmin" }]));
    let mut person = Visitor::of(&app);
    assert_eq!(person.sign_in(&text("email"), "correct horse").await.json()["authenticated"], true);

    // Every attempt with a link has a row.
    let rows = audited(&admin).await;
    let of = |outcome: &str| {
        rows.iter()
            .filter(|row| row["outcome"] == outcome)
            .filter_map(|row| row["count"].as_u64())
            .sum::<u64>()
    };
    assert_eq!((of("DONE"), of("DENIED")), (1, 4), "{rows:?}");
    assert!(rows.iter().all(|row| row["credential"] == "set-up link"), "{rows:?}");

    assert!(!is_new(&app).await);
    set_up(&app, &now, "eve@lab.example", "correct horse").await.problem(400, "invalid-api-params");
    let said = app.logs().matches("/setup#token=").count();
    app.restart().await;
    assert_eq!(app.logs().matches("/setup#token=").count(), said, "with an account there is no link");
    assert!(!app.logs().contains(&text("secret_key")) && !app.logs().contains("correct horse"));
}

#[tokio::test]
async fn who_guesses_is_kept_waiting_and_who_has_the_link_is_not() {
    let app = bare(&[]).start().await;
    let mut seen = Vec::new();
    for _ in 0..25 {
        // A user who confuses the fields types secrets that must not appear anywhere.
        seen.push(set_up(&app, "guess", "a password of hers", "a password of hers").await.status);
    }
    assert!(seen.contains(&429) && seen.ends_with(&[429]), "{seen:?}");
    let reply = set_up(&app, &token(&app), "ann@lab.example", "correct horse").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let data = reply.json()["data"].clone();
    let text = |field: &str| data[field].as_str().unwrap().to_owned();
    let admin = Api::new(app.url(), Some(Keypair::new(&text("access_key"), &text("secret_key"))));
    let rows = json!(audited(&admin).await).to_string();
    assert!(rows.contains("DENIED") && !rows.contains("a password of hers"), "{rows}");
}

#[tokio::test]
async fn credentials_that_were_given_need_no_page_and_a_terminal_gets_one_when_asked() {
    let given = Launch::new(|command: &mut Command| {
        command.env_remove("WHARF_ADMIN_EMAIL").arg("--setup-page");
    });
    let app = given.start().await;
    assert!(!app.logs().contains("/setup#"), "{}", app.logs());
    let mut person = Visitor::of(&app);
    assert_eq!(person.sign_in("admin@localhost", ADMIN_PASSWORD).await.json()["authenticated"], true);
    let keys = Keypair::new(ADMIN_ACCESS_KEY, ADMIN_SECRET_KEY);
    assert_eq!(audited(&Api::new(app.url(), Some(keys))).await, Vec::<Value>::new());

    let launch = Launch::plain();
    let serve = "serve --setup-page --engine none --listen 127.0.0.1:0";
    let mut command = launch.on_terminal(serve);
    command.env("WHARF_ADMIN_EMAIL", "ann@lab.example");
    let (out, err) = (launch.root().join("out"), launch.root().join("err"));
    let mut process = Process::spawn(&mut command, &out, &err).unwrap();
    until("the announcement", PATIENCE, async || read(&out).contains("listening on ").then_some(())).await;
    let said = read(&out);
    assert!(said.contains("/setup#token=") && said.contains("&email=ann%40lab.example"), "{said}");
    assert!(!said.contains("password "), "{said}");
    process.terminate();
    process.exit("script", PATIENCE).await;
}
