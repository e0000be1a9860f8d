//! How agents get in, what shows of them, and how they are put out.

use serde_json::{Value, json};
use wharf::base::secret::Secret;
use wharf::wire::message::FromAgent;

use super::{NODE, Scene};
use crate::support::app::App;
use crate::support::cut::CutProxy;
use crate::support::machine::{Machine, Speaker, agent, becomes, hello, mode, token};
use crate::support::missing;
use crate::support::process::on_path;
use crate::support::registry::{PASSWORD, RealRegistry};
use crate::support::wait::{PATIENCE, until};

/// An engine that is not there; an agent joins without one.
const NO_ENGINE: &str = "unix:///nonexistent/docker.sock";

#[tokio::test]
async fn an_agent_joins_once_and_is_known_from_then_on() {
    let Some(mut scene) = Scene::set(|_| ()).await else { return };
    let api = scene.api();
    let met = becomes(&api, NODE, "ALIVE").await;
    assert_eq!((&met["engine"], &met["scaling_group"]), (&json!("docker"), &json!("default")), "{met}");
    assert_eq!(met["addr"], "link:127.0.0.1");
    until("its disk to be told", PATIENCE, async || {
        let agent = agent(&api, NODE).await;
        (agent["free_bytes"].is_number() || agent["free_bytes"].is_string()).then_some(())
    })
    .await;
    let file = scene.machine.credential_file();
    assert_eq!((mode(&scene.machine.state()), mode(&file)), (0o700, 0o600));
    let tokens = api.ask("{ agent_tokens { state used_by uses_left } }", json!({})).await;
    assert_eq!(tokens["agent_tokens"], json!([{"state": "used", "used_by": NODE, "uses_left": 0}]));
    let rows = api.audit_rows(0).await;
    let joined: Vec<&Value> = rows.iter().filter(|row| row["action"] == "join_agent").collect();
    assert_eq!(joined.len(), 1, "{rows:?}");
    assert_eq!((&joined[0]["target"], &joined[0]["address"]), (&json!(NODE), &json!("127.0.0.1")));

    // A stop that was meant is told as such at once, and a start needs no token.
    scene.machine.process().terminate();
    let lost = becomes(&api, NODE, "LOST").await;
    assert!(lost["status_reason"].as_str().unwrap().contains("stopped"), "{lost}");
    scene.machine.process().exit("the agent", PATIENCE).await;
    scene.machine.start(None);
    becomes(&api, NODE, "ALIVE").await;
    scene.app.restart().await;
    becomes(&scene.api(), NODE, "ALIVE").await;
    let secret: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let secret = secret["secret"].as_str().unwrap();
    for log in [scene.app.logs(), scene.machine.log()] {
        assert!(!log.contains(secret) && !log.contains("whj_"), "a secret is in a log");
    }
}

#[tokio::test]
async fn a_token_is_good_for_one_agent_until_it_ends() {
    let app = App::start().await;
    let api = app.admin();
    let refused = async |token: &str, words: &str| {
        let ended = Machine::new(app.url(), NO_ENGINE).ends(Some(token)).await;
        assert_eq!(ended.code, 1, "{}", ended.text());
        assert!(ended.stderr.contains("refuses") && ended.stderr.contains(words), "{}", ended.text());
        assert!(app.logs().contains(words), "the manager's log says it too");
    };
    let used = token(&api, json!({})).await;
    let (_first, id) = Speaker::join(&app, hello(Some(&used), "firstfirst")).await.expect("in");
    assert_eq!(id, "i-speaker");
    refused(&used, "was used").await;
    refused("whj_0123456789_wrong", "is unknown").await;
    refused(&format!("{used}0"), "is unknown").await;
    let short = token(&api, json!({"expires_in": 1})).await;
    until("the token to expire", PATIENCE, async || {
        let tokens = api.ask("{ agent_tokens { state } }", json!({})).await;
        tokens["agent_tokens"].as_array().unwrap().iter().any(|t| t["state"] == "expired").then_some(())
    })
    .await;
    refused(&short, "has expired").await;
    let taken_back = token(&api, json!({})).await;
    let id = taken_back.split('_').nth(1).unwrap();
    assert!(api.mutate("revoke_agent_token", &format!("id: {id:?}")).await.0);
    refused(&taken_back, "was revoked").await;
    let bound = token(&api, json!({"id": "i-one"})).await;
    let mut other = hello(Some(&bound), "otherother");
    other.id = Some("i-two".into());
    let refusal = Speaker::join(&app, other).await.err().expect("a refusal");
    assert!(refusal.contains("i-one") && refusal.contains("i-two"), "{refusal}");
    // A token for several nodes is good for so many.
    api.does("create_scaling_group", r#"name: "gpu", props: {}"#).await;
    let many = token(&api, json!({"uses": 2, "scaling_group": "gpu"})).await;
    for key in ["manymany1", "manymany2"] {
        let (_link, id) = Speaker::join(&app, hello(Some(&many), key)).await.expect("in");
        assert_eq!(agent(&api, &id).await["scaling_group"], "gpu");
    }
    assert!(Speaker::join(&app, hello(Some(&many), "manymany3")).await.is_err());
}

#[tokio::test]
async fn no_agent_joins_under_a_word_that_means_other_agents() {
    let app = App::start().await;
    let api = app.admin();
    let (is_made, why) = api.mutate("create_agent_token", r#"props: {id: "all"}"#).await;
    assert!(!is_made && why.contains("every agent") && why.contains("choose another"), "{why}");
    let text = token(&api, json!({})).await;
    let mut asking = hello(Some(&text), "askingasking");
    asking.id = Some("all".into());
    let why = Speaker::join(&app, asking).await.err().expect("a refusal");
    assert!(why.contains("every agent") && why.contains("choose another"), "{why}");
    let tokens = api.ask("{ agent_tokens { state } }", json!({})).await;
    assert_eq!(tokens["agent_tokens"], json!([{"state": "good"}]), "it was not spent");
    // The agent's own command line says it before it dials.
    let ended = Machine::new("http://127.0.0.1:9", NO_ENGINE).with(&["--id", "all"]).ends(Some(&text)).await;
    assert_eq!(ended.code, 1, "{}", ended.text());
    assert!(ended.stderr.contains("--id") && ended.stderr.contains("choose another"), "{}", ended.text());
}

#[tokio::test]
async fn nobody_joins_a_scaling_group_that_is_not_there() {
    let app = App::start().await;
    let api = app.admin();
    let (is_made, why) = api.mutate("create_agent_token", r#"props: {scaling_group: "gpu"}"#).await;
    assert!(!is_made && why.contains("scaling group") && why.contains("gpu"), "{why}");
    // What an agent asks for itself, and what was removed since the token was made, is looked at when it joins.
    let text = token(&api, json!({})).await;
    let mut asking = hello(Some(&text), "askingasking");
    asking.scaling_group = Some("gpu".into());
    let why = Speaker::join(&app, asking.clone()).await.err().expect("a refusal");
    assert!(why.contains("no scaling group gpu") && why.contains("wharf scaling-group add gpu"), "{why}");
    let tokens = api.ask("{ agent_tokens { state } }", json!({})).await;
    assert_eq!(tokens["agent_tokens"], json!([{"state": "good"}]), "it was not spent");
    api.does("create_scaling_group", r#"name: "gpu", props: {}"#).await;
    let (_link, id) = Speaker::join(&app, asking).await.expect("in");
    assert_eq!(agent(&api, &id).await["scaling_group"], "gpu");
}

#[tokio::test]
async fn only_super_admins_let_agents_in_and_put_them_out() {
    let app = App::start().await;
    let nobody =
        app.anonymous().call("POST", "/admin/gql").json(&json!({"query": "{ agent_tokens { id } }"}));
    assert_eq!(nobody.send().await.status, 401);
    let plain = app.anonymous().call("GET", "/agents/link").send().await;
    plain.problem(426, "upgrade-required");
    let without = Machine::new(app.url(), NO_ENGINE).ends(None).await;
    assert!(without.code == 1 && without.stderr.contains("wharf agent token create"), "{}", without.text());
}

#[tokio::test]
async fn a_removed_agent_is_cut_off_at_once_and_joins_again_only_by_a_new_token() {
    let app = App::start().await;
    let api = app.admin();
    let mut machine = Machine::new(app.url(), NO_ENGINE).with(&["--id", "gpu01", "--label", "zone=a"]);
    machine.start(Some(&token(&api, json!({})).await));
    let lost = becomes(&api, "gpu01", "LOST").await;
    assert_eq!(lost["labels"], json!([{"key": "zone", "value": "a"}]));
    machine.logs("linked to the manager").await;
    let before = std::fs::read_to_string(machine.credential_file()).unwrap();
    assert_eq!(api.mutate("remove_agent", "id: \"gpu01\"").await, (true, "done".into()));
    machine.logs("an admin removed this agent").await;
    let status = machine.process().exit("the agent", PATIENCE).await;
    assert_eq!(status.code(), Some(1), "the token it has was used");
    assert!(machine.log().contains("an admin removed this agent"), "{}", machine.log());
    assert!(agent(&api, "gpu01").await.is_null());
    assert!(!api.mutate("remove_agent", "id: \"gpu01\"").await.0, "it is gone");
    let again = machine.ends(None).await;
    assert!(again.code == 1 && again.stderr.contains("its credential is unknown"), "{}", again.text());
    machine.start(Some(&token(&api, json!({})).await));
    becomes(&api, "gpu01", "LOST").await;
    let after = std::fs::read_to_string(machine.credential_file()).unwrap();
    assert_ne!(before, after, "what was revoked is not used again");
}

#[tokio::test]
async fn one_id_is_one_agent() {
    let app = App::start().await;
    let api = app.admin();
    let mut first = hello(Some(&token(&api, json!({})).await), "firstfirst");
    first.id = Some("gpu01".into());
    let (_link, _) = Speaker::join(&app, first.clone()).await.expect("in");
    let mut second = hello(Some(&token(&api, json!({})).await), "secondsecond");
    second.id = Some("gpu01".into());
    let refusal = Speaker::join(&app, second).await.err().expect("a refusal");
    assert!(refusal.starts_with("Id: there is an agent gpu01 already"), "{refusal}");
    // A copied machine has the credential, and is another process.
    let mut copy = first.clone();
    copy.instance = "another".into();
    let refusal = Speaker::join(&app, copy).await.err().expect("a refusal");
    assert!(refusal.starts_with("Connected: gpu01 is connected already"), "{refusal}");
    // The process itself may come back before its old link is known to be dead.
    assert!(Speaker::join(&app, first).await.is_ok());
}

#[tokio::test]
async fn a_token_takes_nobody_elses_credential() {
    let app = App::start().await;
    let api = app.admin();
    let mut victim = hello(Some(&token(&api, json!({})).await), "victimvictim");
    victim.id = Some("gpu01".into());
    let (mut link, _) = Speaker::join(&app, victim.clone()).await.expect("in");
    victim.token = None;
    // Keys are not secret; this one comes with another secret, and a token that is good.
    let good = token(&api, json!({"id": "gpu02"})).await;
    let mut thief = hello(Some(&good), "victimvictim");
    thief.credential.secret = Secret::new("t".repeat(64));
    let refusal = Speaker::join(&app, thief).await.err().expect("a refusal");
    assert!(refusal.contains("known by the key") && refusal.contains("--state-dir"), "{refusal}");
    link.say(&FromAgent::Bye).await;
    becomes(&api, "gpu01", "LOST").await;
    let (mut link, id) = Speaker::join(&app, victim.clone()).await.expect("it is still known");
    assert_eq!(id, "gpu01");
    link.say(&FromAgent::Bye).await;
    becomes(&api, "gpu01", "LOST").await;

    // What was made for an agent before it came replaces nothing; what a super-admin makes for it then does.
    let (_other, id) =
        Speaker::join(&app, hello(Some(&good), "gpu02gpu02")).await.expect("the token was not spent");
    assert_eq!(id, "gpu02");
    let early = token(&api, json!({"id": "gpu03"})).await;
    let mut owner = hello(Some(&token(&api, json!({})).await), "ownerowner");
    owner.id = Some("gpu03".into());
    let (mut link, _) = Speaker::join(&app, owner.clone()).await.expect("in");
    owner.token = None;
    link.say(&FromAgent::Bye).await;
    becomes(&api, "gpu03", "LOST").await;
    let refusal = Speaker::join(&app, hello(Some(&early), "earlyearly")).await.err().expect("a refusal");
    assert!(refusal.contains("wharf agent token create --id gpu03"), "{refusal}");
    let anew = token(&api, json!({"id": "gpu03"})).await;
    let (_link, id) = Speaker::join(&app, hello(Some(&anew), "anewanewanew")).await.expect("in");
    assert_eq!(id, "gpu03");
    assert!(Speaker::join(&app, owner).await.is_err(), "it was replaced");
}

#[tokio::test]
async fn an_image_goes_over_the_link_and_what_changes_there_shows_within_seconds() {
    let Some(real) = RealRegistry::with_password().await else { return };
    let Some(scene) = Scene::with(real, |_| ()).await else { return };
    let task = scene.begin("preload_image").await;
    let events = scene.api().events(&task).await.rest().await;
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names[names.len() - 2..], ["bgtask_done", "server_close"], "{names:?}");
    assert_eq!(scene.item(&task).await, ("done".into(), 1, "loaded".into()));
    let ended = scene.api().task(&task).await;
    let total = ended["total_progress"].as_u64().or_else(|| ended["total_progress"].as_str()?.parse().ok());
    assert!(total.is_some_and(|total| total >= 200_000), "bytes are told: {ended:#}");
    assert_eq!(scene.presence().await, "present");
    assert!(scene.real.credentials().is_some());
    for log in [scene.app.logs(), scene.machine.log()] {
        assert!(!log.contains(PASSWORD), "the registry's password is in a log");
    }

    let becomes = async |state: &str| {
        let what = format!("the image to be {state}");
        until(&what, PATIENCE * 2, async || (scene.presence().await == state).then_some(())).await;
    };
    scene.node.docker_ok(&["tag", &scene.name(), "kept:1"]).await;
    scene.node.docker_ok(&["rmi", &scene.name()]).await;
    scene.node.docker_ok(&["rmi", "kept:1"]).await;
    becomes("absent").await;
    let again = scene.begin("preload_image").await;
    scene.api().finish(&again).await;
    becomes("present").await;
    let off = scene.begin("unload_image").await;
    assert_eq!(scene.api().finish(&off).await.name, "bgtask_done");
    assert_eq!(scene.item(&off).await, ("done".into(), 1, "removed".into()));
    assert_eq!(scene.presence().await, "absent");

    // A drained agent gets nothing new.
    let drained = scene.app.wharf(&["agent", "drain", NODE]).await;
    assert_eq!(drained.code, 0, "{}", drained.text());
    assert_eq!(agent(&scene.api(), NODE).await["schedulable"], false);
    let refused = scene.begin("preload_image").await;
    scene.api().finish(&refused).await;
    let (state, _, reason) = scene.item(&refused).await;
    assert!(state == "failed" && reason.contains("draining"), "{state}: {reason}");
    assert_eq!(scene.app.wharf(&["agent", "drain", NODE, "--undo"]).await.code, 0);
    let at_last = scene.begin("preload_image").await;
    assert_eq!(scene.api().finish(&at_last).await.name, "bgtask_done");
}

#[tokio::test]
async fn the_shell_makes_lists_and_revokes_tokens() {
    let app = App::start().await;
    let made = app.wharf(&["agent", "token", "create", "--id", "gpu01", "--expires", "2h"]).await;
    assert_eq!(made.code, 0, "{}", made.text());
    let token = made.stdout.trim();
    assert!(token.starts_with("whj_") && !token.contains(char::is_whitespace), "{token}");
    let list = app.wharf(&["agent", "token", "list"]).await.stdout;
    let id = token.split('_').nth(1).unwrap();
    assert!(list.contains(id) && list.contains("good") && list.contains("gpu01"), "{list}");
    assert!(!list.contains(token.rsplit('_').next().unwrap()), "{list}");
    assert_eq!(app.wharf(&["agent", "token", "revoke", id]).await.code, 0);
    let list = app.wharf(&["agent", "token", "list", "--json"]).await.stdout;
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list[0]["state"], "revoked");
    for wrong in [
        &["agent", "token", "create", "--expires", "40d"][..],
        &["agent", "token", "create", "--id", "a b"],
        &["agent", "token", "revoke", "nothing"],
        &["agent", "remove", "nothing"],
    ] {
        let refused = app.wharf(wrong).await;
        assert_eq!(refused.code, 1, "{wrong:?}: {}", refused.text());
    }
    let misplaced = app.wharf(&["agent", "--manager", "http://127.0.0.1:1", "list"]).await;
    assert_eq!(misplaced.code, 2, "{}", misplaced.text());
    assert_eq!(app.wharf(&["agent"]).await.code, 2);
}

#[tokio::test]
async fn a_manager_behind_tls_is_trusted_by_its_ca_alone() {
    if !on_path("openssl") {
        return missing("openssl", "apt-get install openssl");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca.pem &&
        openssl req -newkey rsa:2048 -nodes -subj /CN=wharf -keyout key.pem -out csr.pem &&
        echo subjectAltName=IP:127.0.0.1 > ext &&
        openssl x509 -req -days 2 -in csr.pem -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile ext -out cert.pem";
    let made =
        std::process::Command::new("sh").args(["-c", script]).current_dir(folder.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = |name: &str| folder.path().join(name);
    let app = App::start().await;
    let api = app.admin();
    let proxy = CutProxy::with_tls(app.url(), &file("cert.pem"), &file("key.pem")).await;
    let token = token(&api, json!({})).await;
    let mut doubtful = Machine::new(&proxy.url(), NO_ENGINE);
    doubtful.start(Some(&token));
    doubtful.logs("no trusted CA signed the manager's certificate").await;
    drop(doubtful);
    let ca = file("ca.pem").display().to_string();
    let mut machine = Machine::new(&proxy.url(), NO_ENGINE).with(&["--ca-file", &ca, "--id", "gpu01"]);
    machine.start(Some(&token));
    machine.logs("linked to the manager").await;
    assert!(!machine.log().contains("not encrypted"), "{}", machine.log());
}
