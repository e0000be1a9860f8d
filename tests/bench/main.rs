//! What `make bench` measures.

fn main() {}
