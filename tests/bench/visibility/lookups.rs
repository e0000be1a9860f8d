//! Measures whether, and how surely, the time of a lookup tells a hidden image from one that does not exist.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde_json::json;
use wharf::base::ids::ImageId;

use super::super::report::{check, heading, median, note};
use super::super::stock;
use super::super::support::api::Api;
use super::super::support::app::Launch;
use super::{ANN, IMAGES, World};

/// Lookups of each kind: in the process, and over HTTP.
const LOOKUPS: (usize, usize) = (20_000, 8_000);
/// Number of hidden images that have an alias.
const ALIASED: usize = 1_000;
/// Most standard errors that count as chance: chance alone exceeds them once in some ten thousand runs.
const MOST_ERRORS: f64 = 4.0;

/// The kind of name that a lookup uses.
#[derive(Clone, Copy)]
enum By {
    Name,
    Alias,
    Id,
}

impl By {
    const ALL: [(Self, &str); 3] = [(Self::Name, "by name"), (Self::Alias, "by alias"), (Self::Id, "by id")];

    /// A reference to an image that exists, or to one that does not; the two are alike in all else.
    fn reference(self, round: usize, is_there: bool) -> String {
        match self {
            Self::Name => name(round, is_there),
            Self::Alias => alias(round * 7919 % ALIASED, is_there),
            Self::Id => ImageId::of(&name(round, is_there), "x86_64").to_string(),
        }
    }
}

fn name(round: usize, is_there: bool) -> String {
    let number = round * 7919 % IMAGES;
    let major = if is_there { 2 } else { 3 };
    let tag = format!("{major}.{}-py39-ubuntu20.04-cuda11.3", number % 100);
    format!("{}/stable/python-tensorflow-{:04}:{tag}", stock::HOST, number / 100)
}

fn alias(number: usize, is_there: bool) -> String {
    format!("weights-{:05}", 2 * number + usize::from(!is_there))
}

pub async fn measure(launch: Launch, ann: &Api) {
    heading("visibility: lookups of a hidden image and of one that is not there, in turn");
    let mut app = launch.clone().start().await;
    app.admin().allow_registries("default", &[""]).await;
    app.terminate().await;
    {
        let world = World::load(&launch.data_dir()).await;
        for number in 0..ALIASED {
            let (alias, target) = (alias(number, true), name(number, true));
            world.catalog.alias(&stock::superadmin(), &alias, &target, None).await.expect("an alias");
        }
        let caller = world.accounts.caller_of(ANN).expect("ann");
        for (by, words) in By::ALL {
            let mut times = Times::default();
            for (round, is_there) in in_turn(LOOKUPS.0) {
                let reference = by.reference(round, is_there);
                let started = Instant::now();
                assert!(black_box(world.catalog.image(&caller, &reference, None)).is_err());
                times.add(is_there, started.elapsed());
            }
            times.tell(&format!("{words}, in the process"));
        }
    }
    let app = launch.start().await;
    let api = ann.at(app.url());
    for (by, words) in By::ALL {
        let mut times = Times::default();
        for (round, is_there) in in_turn(LOOKUPS.1) {
            times.add(is_there, look(&api, &by.reference(round, is_there)).await);
        }
        times.tell(&format!("{words}, through HTTP"));
        times.judge();
    }
}

/// Both kinds in every round; each comes first equally often.
fn in_turn(rounds: usize) -> impl Iterator<Item = (usize, bool)> {
    (0..rounds).flat_map(|round| [(round, round % 2 == 0), (round, round % 2 != 0)])
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

#[derive(Default)]
struct Times {
    hidden: Vec<Duration>,
    unknown: Vec<Duration>,
}

impl Times {
    fn add(&mut self, is_there: bool, time: Duration) {
        if is_there { self.hidden.push(time) } else { self.unknown.push(time) }
    }

    fn tell(&self, what: &str) {
        let medians = [&self.hidden, &self.unknown].map(|times| median(times).as_secs_f64() * 1e6);
        note(
            &format!("{what}: hidden, not there, medians"),
            &format!("{:.2}, {:.2} us", medians[0], medians[1]),
        );
        note("  guessed rightly of pairs, by the longer time", &format!("{:.2} %", self.guessed() * 100.0));
    }

    fn judge(&self) {
        // The standard error of Mann and Whitney's statistic if both samples have the same distribution.
        let (n, m) = (count(&self.hidden), count(&self.unknown));
        let error = ((n + m + 1.0) / (12.0 * n * m)).sqrt();
        let off = (self.guessed() - 0.5).abs() / error;
        check("  how far that is from guessing blindly, in standard errors", off, MOST_ERRORS, "");
        let apart = self.apart() / ((n + m) / (n * m)).sqrt();
        // Kolmogorov and Smirnov's bound that chance exceeds in one run of ten thousand.
        check("  the distributions, at most apart, scaled", apart, 2.23, "");
    }

    /// The share of all pairs of a hidden and a missing image in which the hidden one took longer: one half if the
    /// times tell nothing.
    fn guessed(&self) -> f64 {
        let mut unknown = self.unknown.clone();
        unknown.sort();
        let halves = |time: &Duration| {
            let below = unknown.partition_point(|other| other < time);
            let up_to = unknown.partition_point(|other| other <= time);
            float(below + up_to)
        };
        self.hidden.iter().map(halves).sum::<f64>() / 2.0 / count(&self.hidden) / count(&self.unknown)
    }

    /// The largest difference between the shares of both kinds that are finished by some time.
    fn apart(&self) -> f64 {
        let sorted = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort();
            times
        };
        let (hidden, unknown) = (sorted(&self.hidden), sorted(&self.unknown));
        let done = |times: &[Duration], by: &Duration| {
            float(times.partition_point(|time| time <= by)) / count(times)
        };
        let differences =
            hidden.iter().chain(&unknown).map(|by| (done(&hidden, by) - done(&unknown, by)).abs());
        differences.fold(0.0, f64::max)
    }
}

fn count(times: &[Duration]) -> f64 {
    float(times.len())
}

fn float(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
