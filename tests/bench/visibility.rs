//! Deciding which images a user sees: how long it takes compared with a plain loop that knows the answers, how long a
//! page takes, and whether the time of a lookup tells a hidden image from one that does not exist.

mod lookups;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_graphql::Request;
use wharf::access::accounts::Accounts;
use wharf::access::caller::Caller;
use wharf::access::tenants::Tenants;
use wharf::access::visibility::ImageFilter;
use wharf::base::clock::Clock;
use wharf::base::digest::Digest;
use wharf::catalog::image::Image;
use wharf::catalog::service::Catalog;
use wharf::engine::image::Held;
use wharf::fleet::service::{AgentChange, Fleet};
use wharf::graphql::kit::answer::{self, Later};
use wharf::graphql::spec::{self, Outcome};
use wharf::store::Store;

use super::report::{check, heading, median, milliseconds, note};
use super::support::api::Api;
use super::support::app::{App, Launch};
use super::{fleet, images, stock};

const IMAGES: usize = 100_000;
const AGENTS: usize = 32;
const ANN: &str = "ann@test.invalid";
const ROUNDS: usize = 21;

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
        let of_group = ImageFilter { group: Some("vision".into()), ..ImageFilter::default() };
        decide(&world, &caller, "by registry and owner", &ImageFilter::default(), || {});
        decide(&world, &caller, "on the group's agents as well", &of_group, || {});
        let installed = ImageFilter { is_installed: Some(true), ..of_group.clone() };
        decide(&world, &caller, "on the group's agents, and installed", &installed, || {});
        let newest = std::cell::Cell::new(0);
        let reported =
            || world.fleet.revise("i-gpu00", vec![unlisted(newest.replace(newest.get() + 1))], &[], None);
        decide(&world, &caller, "on the group's agents, one of which has just reported", &of_group, reported);
        caller
    };
    pages(&images::spec_api(&launch.data_dir()), &caller).await;

    lookups::measure(launch, &ann).await;
}

/// Makes the user ann, in a group that may use the agents of `gpu`, and stops the server.
async fn settle(mut app: App) -> Api {
    let admin = app.admin();
    let ann = app.person(ANN, "user", "default").await;
    admin.allow_registries("default", &[stock::HOST]).await;
    let of_domain = "scaling_group: \"default\", domain: \"default\"";
    admin.does("disassociate_scaling_group_with_domain", of_domain).await;
    for name in ["gpu", "cpu"] {
        admin.does("create_scaling_group", &format!("name: \"{name}\", props: {{}}")).await;
    }
    admin.does("create_group", "name: \"vision\", props: {domain_name: \"default\"}").await;
    let id = admin.group_id("vision").await;
    let joins = format!("gid: \"{id}\", props: {{user_update_mode: \"add\", user_uuids: [\"{}\"]}}", ann.id);
    admin.does("modify_group", &joins).await;
    let uses = format!("scaling_group: \"gpu\", user_group: \"{id}\"");
    admin.does("associate_scaling_group_with_user_group", &uses).await;
    // ann's keypair needs more lookups than the usual limit allows.
    let unlimited = format!("access_key: \"{}\", props: {{rate_limit: 0}}", ann.access_key);
    admin.does("modify_keypair", &unlimited).await;
    app.terminate().await;
    ann.api
}

/// A server's services over a data directory, with agents that hold images.
struct World {
    accounts: Accounts,
    catalog: Catalog,
    fleet: Fleet,
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
        let images = catalog.images(&stock::superadmin(), &ImageFilter::default()).expect("images");
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
                fleet.begin_read(),
                images.iter().skip(number % 3).step_by(3).map(|image| held(image)).collect(),
                None,
            );
        }
        Self { accounts, catalog, fleet }
    }
}

fn held(image: &Image) -> Held {
    let names = vec![image.record.canonical().to_string()];
    Held {
        digest: image.record.digest.clone(),
        parts: Vec::new(),
        names,
        manifests: Vec::new(),
        size_bytes: 1,
    }
}

/// An image that is in no catalog.
fn unlisted(number: u32) -> Held {
    let digest = Digest::sha256_of(&number.to_le_bytes());
    Held {
        digest,
        parts: Vec::new(),
        names: vec![format!("elsewhere.invalid/built:{number}")],
        manifests: Vec::new(),
        size_bytes: 1,
    }
}

/// Compares the list with the shortest possible loop over the same images: the loop has the images in a row with the
/// answer beside each, and touches only the visible ones.
fn decide(world: &World, caller: &Caller, what: &str, filter: &ImageFilter, before: impl Fn()) {
    let catalog = &world.catalog;
    let images = catalog.images(&stock::superadmin(), &ImageFilter::default()).expect("images");
    let seen = catalog.images(caller, filter).expect("images");
    let ids: std::collections::HashSet<_> = seen.iter().map(|image| image.id).collect();
    let answers: Vec<bool> = images.iter().map(|image| ids.contains(&image.id)).collect();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        before();
        let started = Instant::now();
        let decided = black_box(catalog.images(black_box(caller), filter).expect("images"));
        ours.push(started.elapsed());
        // Both measurements start with the processor's caches in the same state.
        before();
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

async fn pages(api: &spec::Api, caller: &Caller) {
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
            let Outcome::Answered(answer) = api.ask(request, false).await else {
                panic!("a page is refused")
            };
            answer::envelope(&answer, &later).for_each(|piece| drop(black_box(piece)));
            times.push(started.elapsed());
            assert!(answer.errors.is_empty(), "{:?}", answer.errors);
        }
        check(&format!("a page of 50 nodes, {what}"), median(&times).as_secs_f64() * 1e3, 20.0, " ms");
    }
}
