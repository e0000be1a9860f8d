//! Session mode: signed in with e-mail and password instead of a keypair.

use crate::clients::rows::SESSIONS;
use crate::clients::trial::Trial;
use crate::support::app::{ADMIN_EMAIL, ADMIN_PASSWORD};
use crate::support::client::Entry;
use crate::support::image::Image;
use crate::support::registry::RealRegistry;

async fn day(mut trial: Trial) {
    const LOGIN: &str = "login";
    const LIST: &str = "admin image list, signed in";
    const RESCAN: &str = "admin image rescan, signed in";
    const LOGOUT: &str = "logout";
    let Some(registry) = RealRegistry::open().await else { return };
    registry.push(&Image::new("stable/python", "3.9-ubuntu20.04")).await;
    trial.admin.add_registry(&registry).await;
    trial.enter_by(Entry::Session);
    let (list, rescan) = (
        trial.say("admin images", "admin image list"),
        trial.say("admin rescan-images", "admin image rescan"),
    );

    let right = format!("{ADMIN_EMAIL}\n{ADMIN_PASSWORD}\n");
    let wrong = trial.run_fed(&["login"], &format!("{ADMIN_EMAIL}\nwrong\n")).await;
    trial.check(LOGIN, !wrong.text().contains("succeeded"), &wrong.text());
    let before = trial.run(&list).await;
    trial.check(LOGIN, before.code != 0, &format!("nobody is signed in yet: {}", before.text()));
    trial.works_fed(LOGIN, &["login"], &right, &["Login succeeded."]).await;
    trial.works(RESCAN, &rescan, &["Finished registry scanning."]).await;
    trial.works(LIST, &list, &["stable/python"]).await;
    trial.works(LOGOUT, &["logout"], &["Logout"]).await;
    let after = trial.run(&list).await;
    trial.check(LOGOUT, after.code != 0, &format!("it is signed in still: {}", after.text()));

    rest(&mut trial, &right).await;
    trial.finish();
}

async fn rest(trial: &mut Trial, credentials: &str) {
    const LOGIN: &str = "v2 login";
    const SEARCH: &str = "v2 admin image search, signed in";
    const QUERY: &str = "v2 gql QUERY, signed in";
    const LOGOUT: &str = "v2 logout";
    let search = ["v2", "admin", "image", "search"];
    let query = ["v2", "gql", "{ images { name } }"];
    if trial.year < 26 {
        trial.lacks(LOGIN, &["v2", "login"]).await;
        trial.lacks(SEARCH, &search).await;
        trial.lacks(QUERY, &query).await;
        trial.lacks(LOGOUT, &["v2", "logout"]).await;
        return;
    }
    trial.works_fed(LOGIN, &["v2", "login"], credentials, &["Login succeeded."]).await;
    trial.works(SEARCH, &search, &["stable/python"]).await;
    trial.works(QUERY, &query, &["stable/python"]).await;
    trial.works(LOGOUT, &["v2", "logout"], &["Logged out."]).await;
    let after = trial.run(&search).await;
    trial.check(LOGOUT, after.code != 0, &format!("it is signed in still: {}", after.text()));
}

for_each_release!(SESSIONS, day);
