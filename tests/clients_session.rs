//! The official clients in session mode: a password instead of a keypair, and everything below `/func/`.

use serde_json::json;

use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD, App};
use crate::support::client::Client;
use crate::support::visitor::Visitor;

const ANOTHER: &str = "another planted password";

/// Returns how the clients of a generation list images as an admin.
fn list(version: &str) -> &'static [&'static str] {
    if version.starts_with("20.") { &["admin", "images"] } else { &["admin", "image", "list"] }
}

/// Signs in, works, changes the password, signs out, and then has no access.
async fn a_day_without_a_keypair(version: &str) {
    let Some(client) = Client::find(version).await else { return };
    let app = App::start().await;
    let person = |email: &str, password: &str| format!("{email}\n{password}\n");

    let outcome = client.in_session(&app, &["login"], &person(ADMIN_EMAIL, "a wrong password")).await;
    assert!(!outcome.text().contains("Login succeeded."), "{}", outcome.text());
    assert_eq!(outcome.code, 1, "{}", outcome.text());
    let outcome = client.in_session(&app, list(version), "").await;
    assert!(outcome.text().contains("Unauthorized"), "{}", outcome.text());

    let outcome = client.in_session(&app, &["login"], &person(ADMIN_EMAIL, ADMIN_PASSWORD)).await;
    assert!(outcome.text().contains("Login succeeded."), "{}", outcome.text());
    let outcome = client.in_session(&app, list(version), "").await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    for complaint in ["Traceback", "APIVersionWarning", "Unauthorized"] {
        assert!(!outcome.text().contains(complaint), "{}", outcome.text());
    }
    let sessions = app.admin().ask("{ sessions { address } }", json!({})).await;
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "{sessions}");

    let change = ["update-password", ADMIN_PASSWORD, ANOTHER, ANOTHER];
    let outcome = client.in_session(&app, &change, "").await;
    assert!(outcome.text().contains("Password updated."), "{}", outcome.text());
    let mut other = Visitor::of(&app);
    other.sign_in(ADMIN_EMAIL, ANOTHER).await;
    assert!(other.is_signed_in().await, "with the new password");

    let outcome = client.in_session(&app, &["logout"], "").await;
    assert!(outcome.text().contains("Logout done."), "{}", outcome.text());
    let sessions = app.admin().ask("{ sessions { address } }", json!({})).await;
    assert_eq!(sessions["sessions"].as_array().unwrap().len(), 1, "the other one: {sessions}");
    let outcome = client.in_session(&app, list(version), "").await;
    assert!(outcome.text().contains("Unauthorized"), "{}", outcome.text());
}

#[tokio::test]
async fn client_20_3_10_without_a_keypair() {
    a_day_without_a_keypair("20.3.10").await;
}

#[tokio::test]
async fn client_21_9_5_without_a_keypair() {
    a_day_without_a_keypair("21.9.5").await;
}

#[tokio::test]
async fn client_22_3_2_without_a_keypair() {
    a_day_without_a_keypair("22.3.2").await;
}

#[tokio::test]
async fn client_23_9_10_without_a_keypair() {
    a_day_without_a_keypair("23.9.10").await;
}

#[tokio::test]
async fn client_24_9_14_without_a_keypair() {
    a_day_without_a_keypair("24.9.14").await;
}

#[tokio::test]
async fn client_25_19_2_without_a_keypair() {
    a_day_without_a_keypair("25.19.2").await;
}

#[tokio::test]
async fn client_26_9_6_without_a_keypair() {
    a_day_without_a_keypair("26.9.6").await;
}

#[tokio::test]
async fn the_second_command_line_of_26_9_6_signs_in_too() {
    let Some(client) = Client::find("26.9.6").await else { return };
    let app = App::start().await;
    let person = format!("{ADMIN_EMAIL}\n{ADMIN_PASSWORD}\n");
    let outcome = client.in_session(&app, &["v2", "login"], &person).await;
    assert!(outcome.code == 0 && outcome.text().contains("Login succeeded."), "{}", outcome.text());
    let outcome = client.in_session(&app, &["v2", "gql", "{ images { name } }"], "").await;
    assert!(outcome.code == 0 && outcome.text().contains("images"), "{}", outcome.text());
    let outcome = client.in_session(&app, &["v2", "logout"], "").await;
    assert!(outcome.code == 0 && outcome.text().contains("Logged out."), "{}", outcome.text());
    let sessions = app.admin().ask("{ sessions { address } }", json!({})).await;
    assert_eq!(sessions["sessions"], json!([]));
}
