//! Users for the tests, of any role, each with a client and a keypair.

use serde_json::{Value, json};

use super::api::Api;
use super::app::App;
use super::sign::Keypair;

/// The password of all users created here.
pub const PASSWORD: &str = "a password that is long enough";

const CREATE: &str =
    "mutation($email: String!, $props: UserInput!) { create_user(email: $email, props: $props) {
    ok msg user { uuid email role domain_name status } keypair { access_key secret_key } } }";

/// A user with their credentials.
pub struct Person {
    pub api: Api,
    pub id: String,
    pub email: String,
    pub access_key: String,
    pub secret_key: String,
}

impl App {
    /// Creates a user of this role (`user`, `admin`, …) in this domain.
    pub async fn person(&self, email: &str, role: &str, domain: &str) -> Person {
        let props = json!({"password": PASSWORD, "role": role, "domain_name": domain});
        self.person_with(email, props).await
    }

    /// Creates a user with these properties.
    pub async fn person_with(&self, email: &str, props: Value) -> Person {
        let made = self.admin().ask(CREATE, json!({"email": email, "props": props})).await;
        let made = &made["create_user"];
        assert_eq!(made["ok"], true, "{made}");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let access_key = text(&made["keypair"]["access_key"]);
        let secret_key = text(&made["keypair"]["secret_key"]);
        let keypair = Keypair::new(&access_key, &secret_key);
        Person {
            api: Api::new(self.url(), Some(keypair)),
            id: text(&made["user"]["uuid"]),
            email: email.to_owned(),
            access_key,
            secret_key,
        }
    }
}

impl Api {
    /// Runs a mutation that must succeed.
    pub async fn does(&self, field: &str, arguments: &str) {
        let (ok, msg) = self.mutate(field, arguments).await;
        assert!(ok, "{field}({arguments}): {msg}");
    }

    /// Runs a mutation that must be refused, and returns why it was.
    pub async fn fails(&self, field: &str, arguments: &str) -> String {
        let (ok, msg) = self.mutate(field, arguments).await;
        assert!(!ok, "{field}({arguments}) was done");
        msg
    }

    /// Lets the users of a domain see the images of these registries.
    pub async fn allow_registries(&self, domain: &str, hosts: &[&str]) {
        let arguments = format!("name: {domain:?}, props: {{allowed_docker_registries: {hosts:?}}}");
        self.does("modify_domain", &arguments).await;
    }

    /// Returns the id of the only visible group of this name.
    pub async fn group_id(&self, name: &str) -> String {
        let data =
            self.ask("query($n: String!) { groups_by_name(name: $n) { id } }", json!({"n": name})).await;
        data["groups_by_name"][0]["id"].as_str().unwrap_or_else(|| panic!("no group {name}")).to_owned()
    }

    /// Returns the values of one field of a list, sorted.
    pub async fn list(&self, field: &str, of: &str) -> Vec<String> {
        let data = self.ask(&format!("{{ {field} {{ {of} }} }}"), json!({})).await;
        let rows = data[field.split('(').next().unwrap_or_default()].as_array().expect("a list").clone();
        let mut values: Vec<String> =
            rows.iter().map(|row| row[of].as_str().expect("a text").to_owned()).collect();
        values.sort();
        values
    }
}
