//! A data directory on a file system without locks: two servers must never use it at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::app::Launch;
use crate::support::process::run;
use crate::support::wait::PATIENCE;

/// The errors that network and cluster file systems without locks return: EOPNOTSUPP, ENOSYS, EINVAL.
const ANSWERS: [&str; 3] = ["95", "38", "22"];
/// The error of a file system that has locks but none available now: ENOLCK.
const NONE_NOW: &str = "37";

/// Returns the program that makes the system answer so, built in the test's folder.
fn no_locks(folder: &Path) -> PathBuf {
    let program = folder.join("nolock");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/nolock.c");
    let built = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(source)
        .output()
        .expect("a C compiler, as Rust needs one");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

/// Runs the command where locks are answered with this error.
fn without_locks(command: &mut Command, program: &Path, answer: &str) {
    let mut wrapped = Command::new(program);
    wrapped.arg(answer).arg(command.get_program()).args(command.get_args()).env_clear();
    wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(folder) = command.get_current_dir() {
        wrapped.current_dir(folder);
    }
    *command = wrapped;
}

#[tokio::test]
async fn two_servers_never_share_a_directory_that_has_no_locks() {
    let folder = tempfile::tempdir().unwrap();
    let program = no_locks(folder.path());
    for answer in ANSWERS {
        let program = program.clone();
        let launch = Launch::new(move |command| without_locks(command, &program, answer));
        let mut app = launch.clone().start().await;
        assert!(app.logs().contains("no locks on this file system"), "{answer}: {}", app.logs());
        let lock = app.data_dir().join("wharf.redb.lock");
        for _ in 0..2 {
            let refused = launch.refused().await;
            let words = [lock.to_str().unwrap(), &app.process_id().to_string(), "remove"];
            assert!(
                refused.code == 1 && words.iter().all(|word| refused.stderr.contains(word)),
                "{}",
                refused.text()
            );
        }
        // A command that only looks reports it too, and a command that writes is refused.
        let directory = app.data_dir();
        let reset = [
            "user",
            "reset-password",
            "--password-stdin",
            "--data-dir",
            directory.to_str().unwrap(),
            "x@y.z",
        ];
        let mut reset = launch.wharf(&reset);
        without_locks(&mut reset, &folder.path().join("nolock"), answer);
        let refused = run(&mut reset, launch.root(), PATIENCE).await;
        assert!(refused.code == 1 && refused.stderr.contains("wharf.redb.lock"), "{}", refused.text());
        // A killed server left its file; the next one takes it over.
        app.crash().await;
        assert!(lock.exists());
        app.restart().await;
        app.admin().images().await;
        assert_eq!(launch.refused().await.code, 1);
        // After a clean stop there is no file.
        app.terminate().await;
        assert!(!lock.exists(), "{answer}");
        app.restart().await;
        let names: Vec<_> = fs::read_dir(app.data_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.len() == 3, "{answer}: {names:?}");
    }
}

#[tokio::test]
async fn a_file_system_that_has_no_lock_just_now_is_no_place_to_start_in() {
    // Another server may have had one before.
    let folder = tempfile::tempdir().unwrap();
    let program = no_locks(folder.path());
    let launch = Launch::new(move |command| without_locks(command, &program, NONE_NOW));
    let refused = launch.refused().await;
    assert!(refused.code == 1 && refused.stderr.contains("can't be locked"), "{}", refused.text());
    let left: Vec<_> = fs::read_dir(launch.data_dir()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "wharf.redb"), "{left:?}");
}

#[tokio::test]
async fn a_lock_file_keeps_out_a_server_whose_own_system_has_locks() {
    // The same directory, seen from a machine where locks work.
    let folder = tempfile::tempdir().unwrap();
    let program = no_locks(folder.path());
    let without = Launch::new(move |command| without_locks(command, &program, "95"));
    let mut app = without.start().await;
    let directory = app.data_dir();
    let serve =
        ["serve", "--engine", "none", "--listen", "127.0.0.1:0", "--data-dir", directory.to_str().unwrap()];
    let refused = run(&mut app.launch().wharf(&serve), app.launch().root(), PATIENCE).await;
    assert!(refused.code == 1 && refused.stderr.contains("wharf.redb.lock"), "{}", refused.text());
    let doctor = ["doctor", "--json", "--data-dir", directory.to_str().unwrap(), "--endpoint", app.url()];
    let found = run(&mut app.launch().wharf(&doctor), app.launch().root(), PATIENCE).await;
    assert!(found.stdout.contains("in use by a server"), "{}", found.text());
    app.terminate().await;
}
