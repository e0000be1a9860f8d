//! Domains, groups, users, keypairs and scaling groups: made, shown, changed and taken away.

use serde_json::Value;

use crate::clients::rows::{DISSOCIATE, FIELDS_ARE_NOT_TEXTS, TENANTS};
use crate::clients::trial::Trial;

const EMAIL: &str = "ann@lab.example";

async fn day(mut trial: Trial) {
    domains(&mut trial).await;
    let group = groups(&mut trial).await;
    users(&mut trial).await;
    members(&mut trial, &group).await;
    keypairs(&mut trial).await;
    scaling_groups(&mut trial).await;
    policies(&mut trial).await;
    away(&mut trial, &group).await;
    trial.finish();
}

/// Runs what must work: this release's words, and more behind them.
async fn works(
    trial: &mut Trial,
    row: &'static str,
    of_2020: &str,
    later: &str,
    more: &[&str],
    said: &[&str],
) -> String {
    let arguments = [trial.say(of_2020, later).as_slice(), more].concat();
    // `purge` asks whether one is sure.
    trial.works_fed(row, &arguments, "y\n", said).await
}

async fn domains(trial: &mut Trial) {
    const ADD: &str = "admin domain add NAME";
    const LIST: &str = "admin domain list";
    const INFO: &str = "admin domain info NAME";
    const UPDATE: &str = "admin domain update NAME";
    const DELETE: &str = "admin domain delete NAME";
    const PURGE: &str = "admin domain purge NAME";
    let options = ["-d", "A lab", "--allowed-docker-registries", "cr.example.org"];
    works(trial, ADD, "admin domains add", "admin domain add", &[&["lab"][..], &options].concat(), &[]).await;
    let domain = async |trial: &mut Trial, row| {
        let query = "{ domain(name: \"lab\") { description is_active allowed_docker_registries } }";
        trial.ask(row, query).await["domain"].clone()
    };
    let made = domain(trial, ADD).await;
    let registries = made["allowed_docker_registries"].clone();
    trial.check(ADD, made["description"] == "A lab" && registries[0] == "cr.example.org", &made.to_string());
    works(trial, LIST, "admin domains", "admin domain list", &[], &["default", "lab"]).await;
    works(trial, INFO, "admin domain -n", "admin domain info", &["lab"], &["A lab", "cr.example.org"]).await;
    let more = ["lab", "--description", "Another", "--allowed-docker-registries", "cr.example.org"];
    works(trial, UPDATE, "admin domains update", "admin domain update", &more, &[]).await;
    // Releases up to 22.3.2 send an empty list of registries with every change.
    works(
        trial,
        UPDATE,
        "admin domains update",
        "admin domain update",
        &["lab", "--description", "A third"],
        &[],
    )
    .await;
    let changed = domain(trial, UPDATE).await;
    let is_kept = changed["allowed_docker_registries"] == registries;
    trial.check(UPDATE, changed["description"] == "A third" && is_kept, &changed.to_string());
    works(trial, DELETE, "admin domains delete", "admin domain delete", &["lab"], &[]).await;
    let inactive = domain(trial, DELETE).await;
    trial.check(DELETE, inactive["is_active"] == false, &inactive.to_string());
    works(trial, PURGE, "admin domains purge", "admin domain purge", &["lab"], &[]).await;
    let left = trial.ask(PURGE, "{ domains { name } }").await;
    trial.check(PURGE, left["domains"].as_array().map(Vec::len) == Some(1), &left.to_string());
}

async fn group(trial: &mut Trial, row: &'static str, name: &str) -> Value {
    let groups = trial.ask(row, "{ groups { id name description is_active } }").await;
    let groups = groups["groups"].as_array().cloned().unwrap_or_default();
    groups.into_iter().find(|group| group["name"] == name).unwrap_or_default()
}

async fn groups(trial: &mut Trial) -> String {
    const ADD: &str = "admin group add DOMAIN NAME";
    const LIST: &str = "admin group list";
    const INFO: &str = "admin group info ID";
    const NAMED: &str = "admin group info NAME";
    const UPDATE: &str = "admin group update ID";
    works(trial, ADD, "admin groups add", "admin group add", &["default", "vision", "-d", "Eyes"], &[]).await;
    let made = group(trial, ADD, "vision").await;
    trial.check(ADD, made["description"] == "Eyes", &made.to_string());
    let id = made["id"].as_str().unwrap_or_default().to_owned();
    works(trial, LIST, "admin groups", "admin group list", &[], &["vision", &id]).await;
    works(trial, INFO, "admin group", "admin group info", &[&id], &["vision", "Eyes"]).await;
    match trial.year {
        20 => trial.takes_no(NAMED, &["admin", "group", "vision"], "UUID").await,
        21..23 => trial.cannot(NAMED, &["admin", "group", "info", "vision"], &FIELDS_ARE_NOT_TEXTS).await,
        _ => _ = works(trial, NAMED, "", "admin group info", &["vision"], &["Eyes"]).await,
    }
    works(trial, UPDATE, "admin groups update", "admin group update", &[&id, "-d", "Ears"], &[]).await;
    let changed = group(trial, UPDATE, "vision").await;
    trial.check(UPDATE, changed["description"] == "Ears", &changed.to_string());
    id
}

async fn user(trial: &mut Trial, row: &'static str) -> Value {
    let query = format!("{{ user(email: \"{EMAIL}\") {{ uuid full_name status groups {{ name }} }} }}");
    trial.ask(row, &query).await["user"].clone()
}

async fn users(trial: &mut Trial) {
    const ADD: &str = "admin user add DOMAIN EMAIL PASSWORD";
    const LIST: &str = "admin user list";
    const INFO: &str = "admin user info -e EMAIL";
    const UPDATE: &str = "admin user update EMAIL";
    let more = ["default", EMAIL, "a-long-passphrase", "-n", "Ann", "-u", "ann"];
    works(trial, ADD, "admin users add", "admin user add", &more, &[]).await;
    let made = user(trial, ADD).await;
    trial.check(ADD, made["full_name"] == "Ann", &made.to_string());
    works(trial, LIST, "admin users", "admin user list", &[], &[EMAIL]).await;
    works(trial, INFO, "admin user -e", "admin user info -e", &[EMAIL], &[EMAIL, "Ann"]).await;
    works(trial, UPDATE, "admin users update", "admin user update", &[EMAIL, "-n", "Anna"], &[]).await;
    let changed = user(trial, UPDATE).await;
    trial.check(UPDATE, changed["full_name"] == "Anna", &changed.to_string());
}

async fn members(trial: &mut Trial, id: &str) {
    const ADD: &str = "admin group add-users ID USER";
    const REMOVE: &str = "admin group remove-users ID USER";
    let uuid = user(trial, ADD).await["uuid"].as_str().unwrap_or_default().to_owned();
    works(trial, ADD, "admin groups add-users", "admin group add-users", &[id, &uuid], &[]).await;
    let now = user(trial, ADD).await;
    trial.check(ADD, now["groups"].to_string().contains("vision"), &now.to_string());
    works(trial, REMOVE, "admin groups remove-users", "admin group remove-users", &[id, &uuid], &[]).await;
    let now = user(trial, REMOVE).await;
    trial.check(REMOVE, !now["groups"].to_string().contains("vision"), &now.to_string());
}

async fn keypairs(trial: &mut Trial) {
    const ADD: &str = "admin keypair add EMAIL POLICY";
    const LIST: &str = "admin keypair list";
    const INFO: &str = "admin keypair info";
    const UPDATE: &str = "admin keypair update KEY";
    const OFF: &str = "admin keypair deactivate KEY";
    const ON: &str = "admin keypair activate KEY";
    const DELETE: &str = "admin keypair delete KEY";
    let keys = async |trial: &mut Trial, row| {
        let query = format!("{{ keypairs(email: \"{EMAIL}\") {{ access_key is_active rate_limit }} }}");
        trial.ask(row, &query).await["keypairs"].as_array().cloned().unwrap_or_default()
    };
    let before = keys(trial, ADD).await;
    let printed =
        works(trial, ADD, "admin keypairs add", "admin keypair add", &[EMAIL, "default", "-r", "4000"], &[])
            .await;
    let after = keys(trial, ADD).await;
    let new = after.iter().find(|pair| !before.iter().any(|old| old["access_key"] == pair["access_key"]));
    let key = new.and_then(|pair| pair["access_key"].as_str()).unwrap_or_default().to_owned();
    trial.check(ADD, !key.is_empty() && printed.contains(&key), &format!("{after:?}\n{printed}"));
    works(trial, LIST, "admin keypairs", "admin keypair list", &[], &[&key]).await;
    works(trial, INFO, "admin keypair", "admin keypair info", &[], &["admin@test.invalid"]).await;
    let now = async |trial: &mut Trial, row| {
        keys(trial, row).await.into_iter().find(|pair| pair["access_key"] == key.as_str()).unwrap_or_default()
    };
    works(trial, UPDATE, "admin keypairs update", "admin keypair update", &[&key, "-r", "3000"], &[]).await;
    let changed = now(trial, UPDATE).await;
    trial.check(UPDATE, changed["rate_limit"] == 3000 && changed["is_active"] == true, &changed.to_string());
    works(trial, OFF, "admin keypairs deactivate", "admin keypair deactivate", &[&key], &[]).await;
    let changed = now(trial, OFF).await;
    trial.check(OFF, changed["is_active"] == false, &changed.to_string());
    works(trial, ON, "admin keypairs activate", "admin keypair activate", &[&key], &[]).await;
    let changed = now(trial, ON).await;
    trial.check(ON, changed["is_active"] == true, &changed.to_string());
    works(trial, DELETE, "admin keypairs delete", "admin keypair delete", &[&key], &[]).await;
    let left = now(trial, DELETE).await;
    trial.check(DELETE, left.is_null(), &left.to_string());
}

async fn scaling_groups(trial: &mut Trial) {
    const ADD: &str = "admin scaling-group add NAME";
    const LIST: &str = "admin scaling-group list";
    const INFO: &str = "admin scaling-group info NAME";
    const UPDATE: &str = "admin scaling-group update NAME";
    const ASSOCIATE: &str = "admin scaling-group associate-scaling-group NAME DOMAIN";
    const DISSOCIATE_ROW: &str = "admin scaling-group dissociate-scaling-group NAME DOMAIN";
    const AVAILABLE: &str = "admin scaling-group get-available GROUP";
    const DELETE: &str = "admin scaling-group delete NAME";
    works(trial, ADD, "admin scaling-groups add", "admin scaling-group add", &["gpu", "-d", "Fast"], &[])
        .await;
    works(trial, LIST, "admin scaling-groups", "admin scaling-group list", &[], &["default", "gpu"]).await;
    works(trial, INFO, "admin scaling-group -n", "admin scaling-group info", &["gpu"], &["gpu", "Fast"])
        .await;
    works(
        trial,
        UPDATE,
        "admin scaling-groups update",
        "admin scaling-group update",
        &["gpu", "-d", "Faster"],
        &[],
    )
    .await;
    let changed = trial.ask(UPDATE, "{ scaling_group(name: \"gpu\") { description is_active } }").await;
    let changed = &changed["scaling_group"];
    trial.check(
        UPDATE,
        changed["description"] == "Faster" && changed["is_active"] == true,
        &changed.to_string(),
    );

    let (associate, dissociate) = match trial.year {
        20 => {
            ("admin scaling-groups associate-scaling-group", "admin scaling-groups dissociate-scaling-group")
        }
        21..26 => {
            ("admin scaling-group associate-scaling-group", "admin scaling-group dissociate-scaling-group")
        }
        _ => ("admin scaling-group associate-scaling", "admin scaling-group dissociate-scaling"),
    };
    let of_domain = async |trial: &mut Trial, row| {
        let found = trial.ask(row, "{ scaling_groups_for_domain(domain: \"default\") { name } }").await;
        found.to_string().contains("gpu")
    };
    works(trial, ASSOCIATE, associate, associate, &["gpu", "default"], &[]).await;
    let is_associated = of_domain(trial, ASSOCIATE).await;
    trial.check(ASSOCIATE, is_associated, "it is not");
    works(
        trial,
        AVAILABLE,
        "admin list-scaling-groups",
        "admin scaling-group get-available",
        &["default"],
        &["gpu"],
    )
    .await;
    if (22..25).contains(&trial.year) {
        let arguments = [trial.say(dissociate, dissociate).as_slice(), &["gpu", "default"]].concat();
        trial.cannot(DISSOCIATE_ROW, &arguments, &DISSOCIATE).await;
    } else {
        works(trial, DISSOCIATE_ROW, dissociate, dissociate, &["gpu", "default"], &[]).await;
    }
    let is_associated = of_domain(trial, DISSOCIATE_ROW).await;
    trial.check(DISSOCIATE_ROW, !is_associated, "it is associated still");
    works(trial, DELETE, "admin scaling-groups delete", "admin scaling-group delete", &["gpu"], &[]).await;
    let left = trial.ask(DELETE, "{ scaling_groups { name } }").await;
    trial.check(DELETE, !left.to_string().contains("gpu"), &left.to_string());
}

async fn policies(trial: &mut Trial) {
    const LIST: &str = "admin keypair-resource-policy list";
    const INFO: &str = "admin keypair-resource-policy info NAME";
    works(trial, LIST, "admin keypair-resource-policies", LIST, &[], &["default"]).await;
    let later = "admin keypair-resource-policy info";
    works(trial, INFO, "admin keypair-resource-policy -n", later, &["default"], &["default"]).await;
}

/// What was made before goes away.
async fn away(trial: &mut Trial, id: &str) {
    const USER: &str = "admin user delete EMAIL";
    const PURGE_USER: &str = "admin user purge EMAIL";
    const GROUP: &str = "admin group delete ID";
    const PURGE_GROUP: &str = "admin group purge ID";
    works(trial, USER, "admin users delete", "admin user delete", &[EMAIL], &[]).await;
    let inactive = user(trial, USER).await;
    trial.check(USER, inactive["status"] != "active", &inactive.to_string());
    works(trial, PURGE_USER, "admin users purge", "admin user purge", &[EMAIL], &[]).await;
    let left = trial.ask(PURGE_USER, "{ users { email } }").await;
    trial.check(PURGE_USER, !left.to_string().contains(EMAIL), &left.to_string());
    works(trial, GROUP, "admin groups delete", "admin group delete", &[id], &[]).await;
    works(trial, PURGE_GROUP, "admin groups purge", "admin group purge", &[id], &[]).await;
    let left = group(trial, PURGE_GROUP, "vision").await;
    trial.check(PURGE_GROUP, left.is_null(), &left.to_string());
}

for_each_release!(TENANTS, day);
