//! The cost of checking who sent a request.

use std::hint::black_box;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use wharf::access::replays::{Replays, Signed};
use wharf::access::signature::{self, Authorization, Hash, Request};
use wharf::base::clock::Clock;
use wharf::base::secret::Secret;
use wharf::store::Store;

use super::report::{check, heading, median};

const ROUNDS: usize = 51;
const PER_ROUND: u32 = 1_000;

pub fn measure() {
    heading("signature: header and date taken apart, three HMACs, comparison");
    for hash in [Hash::Sha256, Hash::Sha512, Hash::Sha3_512, Hash::Blake2b] {
        let time = one(hash);
        check(&format!("one check with {}", hash.name()), time.as_secs_f64() * 1e6, 20.0, " us");
    }
    check("remembering one, with a body of 1 kB", remembered().as_secs_f64() * 1e6, 5.0, " us");
}

/// The cost of checking that a signature was not used before, with as many signatures remembered as one keypair can
/// have.
fn remembered() -> Duration {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Store::open(directory.path()).expect("a data directory");
    let replays = Replays::load(&store, Clock::system()).expect("an empty table");
    let (now, body, mut number) = (Timestamp::now(), [b'x'; 1024], 0_u64);
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let signed: Vec<_> = (0..PER_ROUND)
            .map(|_| {
                number += 1;
                let at = now + SignedDuration::from_micros(number.cast_signed());
                Signed::new("AKIABENCHBENCHBENCHX", &format!("{number:032x}"), at)
            })
            .collect();
        let started = Instant::now();
        for signed in &signed {
            assert!(replays.take(signed, black_box(&body), None).is_ok());
        }
        rounds.push(started.elapsed() / PER_ROUND);
    }
    median(&rounds)
}

fn one(hash: Hash) -> Duration {
    let date = "2026-11-23T18:00:00.123456+09:00";
    let secret = Secret::new("a-secret-key-of-forty-characters-0123456");
    let request = Request {
        method: "POST",
        target: "/admin/gql",
        date,
        host: "wharf.lab.invalid:8080",
        content_type: "application/json",
        version_header: ("x-backendai-version", "v9.20250722"),
    };
    let right = signature::sign(&request, "20261123", hash, &secret);
    let header =
        format!("BackendAI signMethod=HMAC-{}, credential=AKIABENCHBENCHBENCHX:{right}", hash.name());
    let check = || {
        let authorization = Authorization::parse(black_box(&header)).expect("a header");
        let sent = signature::parse_date(black_box(date)).expect("a date");
        signature::verify(&request, &sent.day, authorization.hash, &secret, authorization.signature)
    };
    assert!(check());
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        for _ in 0..PER_ROUND {
            black_box(check());
        }
        rounds.push(started.elapsed() / PER_ROUND);
    }
    median(&rounds)
}
