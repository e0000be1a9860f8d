//! Deciding who sees what: how long it takes over a plain loop that knows the answers, how long a page takes, and
//! whether the time of a lookup tells a hidden image from one that is not there.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_graphql::Request;
use serde_json::json;
use wharf::access::accounts::Accounts;
use wharf::access::caller::Caller;
use wharf::access::tenants::Tenants;
use wharf::access::visibility::Filter;
use wharf::base::clock::Clock;
use wharf::catalog::image::Image;
use wharf::catalog::service::Catalog;
use wharf::engine::image::Held;
use wharf::fleet::service::{AgentChange, Fleet};
use wharf::graphql::kit::answer::{self, Later};
use wharf::graphql::schema::Schema;
use wharf::store::Store;

use super::report::{check, heading, median, milliseconds, note};
use super::support::api::Api;
use super::support::app::{App, Launch};
use super::{fleet, images, stock};

const IMAGES: usize = 100_000;
const AGENTS: usize = 32;
const ANN: &str = "ann@test.invalid";
const ROUNDS: usize = 21;
/// Lookups of each kind, in the process and through HTTP.
const LOOKUPS: (usize, usize) = (20_000, 3_000);
/// Beyond this, one draw in some ten thousand, a difference is taken to be there.
const MOST_T: f64 = 4.0;

pub async fn measure() {
    heading(
        "visibility: 100,000 images, a user of one group, 32 agents that have a third of the images each",
    );
    let launch = Launch::plain();
    stock::fill(&launch.data_dir(), IMAGES).await;
    let ann = settle(launch.clone().start().await).await;
    let caller = {
        let world = World::load(&launch.data_dir()).await;
        let caller = world.accounts.caller_of(ANN).expect("ann");
        for (what, filter) in [
            ("by registry and owner", Filter::default()),
            ("on the group's agents as well", Filter { group: Some("vision".into()), ..Filter::default() }),
            (
                "on the group's agents, and installed",
                Filter { group: Some("vision".into()), is_installed: Some(true), ..Filter::default() },
            ),
        ] {
            decide(&world.catalog, &caller, what, &filter);
        }
        caller
    };
    pages(&images::schema(&launch.data_dir()), &caller).await;

    heading("visibility: lookups of a hidden image and of one that is not there, in turn");
    let mut app = launch.clone().start().await;
    app.admin().allow_registries("default", &[""]).await;
    app.terminate().await;
    {
        let world = World::load(&launch.data_dir()).await;
        let caller = world.accounts.caller_of(ANN).expect("ann");
        let (mut hidden, mut unknown) = (Vec::new(), Vec::new());
        for round in 0..LOOKUPS.0 {
            let look = |kind: bool, times: &mut Vec<Duration>| {
                let reference = reference(round, kind);
                let started = Instant::now();
                assert!(black_box(world.catalog.image(&caller, &reference, None)).is_err());
                times.push(started.elapsed());
            };
            if round % 2 == 0 {
                look(true, &mut hidden);
                look(false, &mut unknown);
            } else {
                look(false, &mut unknown);
                look(true, &mut hidden);
            }
        }
        note("hidden, in the process, median", &format!("{:.2} us", median(&hidden).as_secs_f64() * 1e6));
        note("not there, in the process, median", &format!("{:.2} us", median(&unknown).as_secs_f64() * 1e6));
        note("Welch's t, in the process", &format!("{:.1}", welch(&hidden, &unknown)));
    }
    over_http(launch, &ann).await;
}

/// Makes ann, who is in a group that may use the agents of `gpu`, and stops the server.
async fn settle(mut app: App) -> Api {
    let admin = app.admin();
    let ann = app.person(ANN, "user", "default").await;
    admin.allow_registries("default", &[stock::HOST]).await;
    let of_domain = "scaling_group: \"default\", domain: \"default\"";
    admin.does("disassociate_scaling_group_with_domain", of_domain).await;
    admin
        .does("create_scaling_group", "name: \"gpu\", props: {driver: \"static\", scheduler: \"fifo\"}")
        .await;
    admin.does("create_group", "name: \"vision\", props: {domain_name: \"default\"}").await;
    let id = admin.group_id("vision").await;
    let joins = format!("gid: \"{id}\", props: {{user_update_mode: \"add\", user_uuids: [\"{}\"]}}", ann.id);
    admin.does("modify_group", &joins).await;
    let uses = format!("scaling_group: \"gpu\", user_group: \"{id}\"");
    admin.does("associate_scaling_group_with_user_group", &uses).await;
    app.terminate().await;
    ann.api
}

/// A server's services over a data directory, with agents that hold images.
struct World {
    accounts: Accounts,
    catalog: Catalog,
}

impl World {
    async fn load(directory: &Path) -> Self {
        let store = Store::open(directory).expect("a data directory");
        let tenants = Tenants::load(&store, jiff::Timestamp::UNIX_EPOCH).expect("tenants");
        let audit = stock::audit(&store);
        let accounts = Accounts::load(&store).expect("accounts");
        let fleet = Fleet::load(&store, Clock::system(), audit.clone(), tenants.clone()).expect("a fleet");
        let catalog = Catalog::load(&store, tenants, Arc::new(fleet.clone()), audit).expect("a catalog");
        let names: Vec<String> = (0..AGENTS).map(|number| format!("gpu{number:02}")).collect();
        fleet::meet_all(&fleet, &names).await;
        let images = catalog.images(&stock::superadmin(), &Filter::default()).expect("images");
        for (number, name) in names.iter().enumerate() {
            let id = format!("i-{name}");
            let scaling_group = if number % 3 == 0 { "gpu" } else { "cpu" };
            fleet
                .change(
                    &stock::superadmin(),
                    &id,
                    AgentChange { scaling_group: Some(scaling_group.into()), ..AgentChange::default() },
                )
                .await
                .expect("an agent");
            fleet.report(
                &id,
                images.iter().skip(number % 3).step_by(3).map(|image| held(image)).collect(),
                None,
            );
        }
        Self { accounts, catalog }
    }
}

fn held(image: &Image) -> Held {
    let names = vec![image.record.canonical().to_string()];
    Held { digest: image.record.digest.clone(), names, manifests: Vec::new(), size_bytes: 1 }
}

/// The list against a loop over the same images that has the answers.
fn decide(catalog: &Catalog, caller: &Caller, what: &str, filter: &Filter) {
    let images = catalog.images(&stock::superadmin(), &Filter::default()).expect("images");
    let seen = catalog.images(caller, filter).expect("images");
    let ids: std::collections::HashSet<_> = seen.iter().map(|image| image.id).collect();
    let answers: Vec<bool> = images.iter().map(|image| ids.contains(&image.id)).collect();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let started = Instant::now();
        let decided = black_box(catalog.images(black_box(caller), filter).expect("images"));
        ours.push(started.elapsed());
        let started = Instant::now();
        let known =
            images.iter().zip(&answers).filter(|(_, answer)| **answer).map(|(image, _)| Arc::clone(image));
        let known: Vec<Arc<Image>> = black_box(known.collect());
        plain.push(started.elapsed());
        assert_eq!(decided.len(), known.len());
    }
    let (ours, plain) = (median(&ours), median(&plain));
    note(&format!("{what}: {} of them", seen.len()), &milliseconds(ours));
    note("a plain loop that has the answers", &milliseconds(plain));
    check("ratio", ours.div_duration_f64(plain), 2.0, "");
}

async fn pages(schema: &Schema, caller: &Caller) {
    for (what, arguments) in [
        ("by name", "first: 50"),
        (
            "filtered and ordered",
            "first: 50, filter: \"name like \\\"%flow-0%\\\" & size_bytes > 4000010000\", order: \"-size_bytes\"",
        ),
        ("ilike, two fields", "first: 50, filter: \"tag ilike \\\"%CUDA%\\\"\", order: \"tag,-name\""),
        ("by time", "first: 50, order: \"-created_at\""),
        ("the last page", "last: 50, order: \"tag\""),
    ] {
        let document = format!(
            "{{ image_nodes({arguments}) {{ count edges {{ cursor node {{ id name tag size_bytes }} }} }} }}"
        );
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let later = Later::default();
            let request = Request::new(document.as_str()).data(caller.clone()).data(later.clone());
            let answer = schema.execute(request).await;
            answer::envelope(&answer, &later).for_each(|piece| drop(black_box(piece)));
            times.push(started.elapsed());
            assert!(answer.errors.is_empty(), "{:?}", answer.errors);
        }
        check(&format!("a page of 50 nodes, {what}"), median(&times).as_secs_f64() * 1e3, 20.0, " ms");
    }
}

/// The name of an image that is there, or of one that is not; they are alike in all else.
fn reference(round: usize, is_there: bool) -> String {
    let number = round * 7919 % IMAGES;
    let tag = if is_there { number % 100 } else { number % 100 + 100 };
    // As long, whether it is there or not.
    let minor = if is_there { format!("2.{tag}") } else { format!("3.{}", tag - 100) };
    format!("{}/stable/python-tensorflow-{:04}:{minor}-py39-ubuntu20.04-cuda11.3", stock::HOST, number / 100)
}

async fn over_http(launch: Launch, ann: &Api) {
    let app = launch.start().await;
    let api = ann.at(app.url());
    let (mut hidden, mut unknown) = (Vec::new(), Vec::new());
    for round in 0..LOOKUPS.1 {
        for is_there in [round % 2 == 0, round % 2 != 0] {
            let taken = look(&api, &reference(round, is_there)).await;
            if is_there { hidden.push(taken) } else { unknown.push(taken) }
        }
    }
    note("hidden, through HTTP, median", &format!("{:.1} us", median(&hidden).as_secs_f64() * 1e6));
    note("not there, through HTTP, median", &format!("{:.1} us", median(&unknown).as_secs_f64() * 1e6));
    check("Welch's t, through HTTP, either way", welch(&hidden, &unknown).abs(), MOST_T, "");
}

async fn look(api: &Api, reference: &str) -> Duration {
    let body = json!({"query": "query($r: String!) { image(reference: $r) { name } }", "variables": {"r": reference}});
    let call = api.call("POST", "/admin/gql").json(&body);
    let started = Instant::now();
    let reply = call.send().await;
    let taken = started.elapsed();
    assert!(reply.text().contains("no such image"), "{}", reply.text());
    taken
}

/// How far apart two means are, in units of their uncertainty. The slowest twentieth of each is left out: what a busy
/// machine does to single requests says nothing of them.
fn welch(a: &[Duration], b: &[Duration]) -> f64 {
    let summary = |times: &[Duration]| {
        let mut times: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
        times.sort_by(f64::total_cmp);
        times.truncate(times.len() * 19 / 20);
        let count = f64::from(u32::try_from(times.len()).unwrap_or(u32::MAX));
        let mean = times.iter().sum::<f64>() / count;
        let variance = times.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    };
    let ((mean_a, error_a), (mean_b, error_b)) = (summary(a), summary(b));
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}
