//! The engine against a small server that speaks Docker's API and misbehaves.
