//! The measurements of `make bench`: the promises about speed and memory, each as a ratio within one run or as a number
//! beside its goal. `cargo bench --bench wharf -- images scan memory login signature fleet layout links seed cache
//! queue visibility` runs only the named ones.

// async-graphql nests the future of a schema one level for each domain; an optimized build follows all levels.
#![recursion_limit = "256"]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    clippy::missing_docs_in_private_items,
    unreachable_pub,
    reason = "a measurement that meets a surprise should stop there and then; and nothing here is an API"
)]

mod cache;
mod fleet;
mod images;
mod layout;
mod links;
mod login;
mod memory;
mod queue;
mod report;
mod scan;
mod seed;
mod signature;
mod stock;
#[path = "../support/mod.rs"]
mod support;
mod visibility;

use std::time::Instant;

fn main() {
    // Cargo adds `--bench` to the user's arguments.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| chosen.is_empty() || chosen.iter().any(|word| word == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let started = Instant::now();
    runtime.block_on(async {
        report::machine();
        if wanted("images") {
            images::measure().await;
        }
        if wanted("scan") {
            scan::measure().await;
        }
        if wanted("memory") {
            memory::measure().await;
        }
        if wanted("fleet") {
            fleet::measure().await;
        }
        if wanted("queue") {
            queue::measure().await;
        }
        if wanted("visibility") {
            visibility::measure().await;
        }
        if wanted("login") {
            login::measure().await;
        }
        if wanted("layout") {
            layout::measure().await;
        }
        if wanted("links") {
            links::measure().await;
        }
        if wanted("seed") {
            seed::measure().await;
        }
        if wanted("cache") {
            cache::measure().await;
        }
        if wanted("signature") {
            signature::measure();
        }
    });
    println!("\nall of it took {:.0} s", started.elapsed().as_secs_f64());
}
