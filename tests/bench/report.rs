//! Combines and prints numbers.

use std::fs;
use std::time::Duration;

/// Prints the machine, so that numbers from different machines are not compared.
pub fn machine() {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = number_after(&memory, "MemTotal:");
    println!(
        "{}, {cores} cores, {:.0} GiB, Linux {}",
        model.map_or("unknown processor", |(_, name)| name),
        mebibytes(total) / 1024.0,
        kernel.trim()
    );
}

/// Prints the heading of a group of numbers.
pub fn heading(text: &str) {
    println!("\n{text}");
}

/// Prints a number without a goal.
pub fn note(what: &str, value: &str) {
    println!("  {what:<58} {value:>12}");
}

/// Prints a number that should be at most `goal`.
pub fn check(what: &str, value: f64, goal: f64, unit: &str) {
    let verdict = if value <= goal { "ok" } else { "MISSED" };
    println!("  {what:<58} {:>12}   at most {goal}{unit}: {verdict}", format!("{value:.2}{unit}"));
}

/// A duration in milliseconds, for people.
pub fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// The median, which a few values disturbed by a busy machine do not move.
pub fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times[times.len() / 2]
}

/// Kibibytes as mebibytes.
pub fn mebibytes(kibibytes: u32) -> f64 {
    f64::from(kibibytes) / 1024.0
}

/// The number after a word in a text from `/proc`.
pub fn number_after(text: &str, word: &str) -> u32 {
    let line = text.lines().find_map(|line| line.strip_prefix(word)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}
