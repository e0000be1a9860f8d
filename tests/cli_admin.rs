//! Administration from a shell: users, groups, domains, scaling groups, keypairs and tokens.

use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::app::App;
use crate::support::process::{Outcome, run};
use crate::support::sign::Keypair;
use crate::support::wait::PATIENCE;

/// Runs a command that must succeed, and returns what it printed.
async fn done(app: &App, line: &str) -> String {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let outcome = app.wharf(&arguments).await;
    assert_eq!(outcome.code, 0, "wharf {line}: {}", outcome.text());
    outcome.stdout
}

/// Runs a command that must succeed, and returns its JSON.
async fn json_of(app: &App, line: &str) -> Value {
    let printed = done(app, &format!("{line} --json")).await;
    serde_json::from_str(&printed).unwrap_or_else(|why| panic!("wharf {line}: {why}: {printed}"))
}

/// Runs a command that must fail, and returns its one-line error.
async fn refused(app: &App, line: &str) -> String {
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let outcome = app.wharf(&arguments).await;
    assert_eq!(outcome.code, 1, "wharf {line}: {}", outcome.text());
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    outcome.stderr
}

/// Returns the holder of the keypair that a command printed as JSON.
fn holder(app: &App, made: &Value) -> Api {
    let text = |field: &str| made[field].as_str().unwrap_or_else(|| panic!("no {field}: {made}")).to_owned();
    Api::new(app.url(), Some(Keypair::new(&text("access_key"), &text("secret_key"))))
}

async fn me(api: &Api) -> Value {
    api.ask("{ user { email role domain_name } }", json!({})).await["user"].take()
}

#[tokio::test]
async fn a_lab_is_set_up_from_a_shell() {
    let app = App::start().await;
    done(&app, "registry add cr.example.org").await;
    done(&app, "domain add lab --description Robots --allow cr.example.org").await;
    done(&app, "group add vision --domain lab").await;
    done(&app, "scaling-group add gpu").await;
    done(&app, "scaling-group allow gpu --group vision --domain lab").await;
    let ann = json_of(&app, "user add ann@lab.invalid --domain lab --group vision --full-name Ann").await;
    assert!(ann["password"].as_str().unwrap().len() >= 20, "{ann}");
    let as_ann = holder(&app, &ann);
    let known = json!({"email": "ann@lab.invalid", "role": "user", "domain_name": "lab"});
    assert_eq!(me(&as_ann).await, known);

    let users = json_of(&app, "user list --domain lab").await;
    assert_eq!(users.as_array().unwrap().len(), 1, "{users}");
    assert_eq!(users[0]["groups"][0]["name"], "vision");
    assert_eq!(json_of(&app, "user list --domain lab --group vision").await, users);
    let domains = json_of(&app, "domain list").await;
    let lab = domains.as_array().unwrap().iter().find(|domain| domain["name"] == "lab").unwrap();
    assert_eq!(lab["allowed_docker_registries"], json!(["cr.example.org"]));
    for (command, word) in
        [("user list", "ann@lab.invalid"), ("group list", "vision"), ("scaling-group list", "gpu")]
    {
        let table = done(&app, command).await;
        assert!(table.contains(word), "{command}: {table}");
    }
    assert!(done(&app, "user show ann@lab.invalid").await.contains("vision"));

    done(&app, "domain change lab --allow other.example.org --disallow cr.example.org").await;
    done(&app, "domain change lab --disallow other.example.org").await;
    let domains = json_of(&app, "domain list").await;
    let lab = domains.as_array().unwrap().iter().find(|domain| domain["name"] == "lab").unwrap();
    assert_eq!(lab["allowed_docker_registries"], json!([]), "the last one can be taken away too");
    assert_eq!(lab["description"], "Robots");

    done(&app, "group leave vision ann@lab.invalid --domain lab").await;
    assert_eq!(json_of(&app, "user show ann@lab.invalid").await["groups"], json!([]));
    done(&app, "group join vision ann@lab.invalid").await;
    assert_eq!(json_of(&app, "user show ann@lab.invalid").await["groups"][0]["name"], "vision");
}

#[tokio::test]
async fn keypairs_are_rotated_limited_and_taken_away() {
    let app = App::start().await;
    let bob = json_of(&app, "user add bob@lab.invalid").await;
    let first = bob["access_key"].as_str().unwrap().to_owned();
    let second = json_of(&app, "keypair add bob@lab.invalid --rate-limit 7").await;
    assert_eq!(me(&holder(&app, &second)).await["email"], "bob@lab.invalid");
    let rotated = json_of(&app, &format!("keypair rotate {first}")).await;
    assert_eq!(rotated["access_key"], bob["access_key"]);
    let hello = async |made: &Value| {
        let api = holder(&app, made);
        api.call("POST", "/admin/gql").json(&json!({"query": "{ __typename }"})).send().await.status
    };
    assert_eq!(hello(&bob).await, 401, "the old secret stopped at once");
    assert_eq!(hello(&rotated).await, 200);
    done(&app, &format!("keypair change {first} --active=false")).await;
    assert_eq!(hello(&rotated).await, 401);
    done(&app, &format!("keypair remove {first}")).await;
    let left = json_of(&app, "keypair list --user bob@lab.invalid").await;
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    assert_eq!(left[0]["rate_limit"], 7);
    done(&app, "user change bob@lab.invalid --status inactive").await;
    assert_eq!(hello(&second).await, 401);
    done(&app, "user remove bob@lab.invalid --purge").await;
    assert!(refused(&app, "user show bob@lab.invalid").await.contains("no such user"));
}

#[tokio::test]
async fn a_token_reads_and_does_not_write() {
    let app = App::start().await;
    let made = json_of(&app, "token create ci --expires-in-days 7").await;
    let token = made["token"].as_str().unwrap().to_owned();
    let ask = async |query: &str| {
        let call = app.anonymous().call("POST", "/graphql").json(&json!({"query": query}));
        call.header("Authorization", &format!("Bearer {token}")).send().await
    };
    assert_eq!(ask("{ images { name } }").await.json()["data"], json!({"images": []}));
    let refused = ask("mutation { dealias_image(alias: \"x\") { ok msg } }").await.json();
    assert_eq!(refused["data"]["dealias_image"]["ok"], false, "{refused}");
    let tokens = json_of(&app, "token list").await;
    assert_eq!((&tokens[0]["name"], &tokens[0]["scope"]), (&json!("ci"), &json!("read")), "{tokens}");
    done(&app, &format!("token revoke {}", tokens[0]["id"].as_str().unwrap())).await;
    assert_eq!(ask("{ images { name } }").await.status, 401);
}

#[tokio::test]
async fn a_token_in_a_pipe_is_the_token_alone_and_lists_tell_its_end_to_the_second() {
    let app = App::start().await;
    let made = app.wharf(&["token", "create", "ci"]).await;
    assert!(made.code == 0 && made.stderr.contains("it is not shown again"), "{}", made.text());
    let token = made.stdout.strip_suffix('\n').unwrap();
    let call = app.anonymous().call("POST", "/graphql").json(&json!({"query": "{ user { email } }"}));
    assert_eq!(call.header("Authorization", &format!("Bearer {token}")).send().await.status, 200);
    done(&app, "agent token create").await;
    for command in ["token list", "agent token list"] {
        let table = done(&app, command).await;
        assert!(table.contains(" UTC "), "{command}: {table}");
    }
}

#[tokio::test]
async fn what_can_not_be_done_is_said_in_one_line() {
    let app = App::start().await;
    done(&app, "domain add lab").await;
    done(&app, "user add ann@lab.invalid --domain lab").await;
    for (line, words) in [
        ("domain add lab", vec!["lab"]),
        ("domain remove lab", vec!["ann@lab.invalid"]),
        ("user add ann@lab.invalid", vec!["ann@lab.invalid"]),
        ("user add zoe@lab.invalid --group no-such", vec!["no-such", "no such group"]),
        ("user change nobody@lab.invalid --full-name N", vec!["nobody@lab.invalid"]),
        ("user remove admin@test.invalid", vec!["last"]),
        ("user change admin@test.invalid --role user", vec!["last"]),
        ("scaling-group allow no-such --domain lab", vec!["no-such"]),
        ("scaling-group allow default --domain no-such", vec!["no-such"]),
        ("keypair rotate AKIANOSUCH", vec!["wharf: no such keypair: AKIANOSUCH"]),
    ] {
        let said = refused(&app, line).await;
        for word in words {
            assert!(said.contains(word), "wharf {line}: {said}");
        }
    }
}

#[tokio::test]
async fn a_password_is_taken_from_a_pipe_and_not_shown() {
    let app = App::start().await;
    let password = "planted-password-of-eve";
    let line = format!(
        "echo {password} | {} user add eve@lab.invalid --password-stdin",
        env!("CARGO_BIN_EXE_wharf")
    );
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]);
    let given = app.command(&[]);
    shell.envs(given.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let outcome: Outcome = run(&mut shell, app.launch().root(), PATIENCE).await;
    assert_eq!(outcome.code, 0, "{}", outcome.text());
    assert!(!outcome.text().contains(password), "{}", outcome.text());
    assert!(!app.logs().contains(password));
}
