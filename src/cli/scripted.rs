//! A small HTTP server for tests: gives scripted answers in turn and remembers what it was asked.
