//! The engine against a small server that speaks CRI over a socket and misbehaves.
