//! Opens a page in the browser of the user in front of the machine, if there is one.

use std::{
    env,
    io::{self, IsTerminal as _},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
};

/// Programs that open a page; the first that exists is used: for Windows around a WSL, a desktop, and macOS.
const OPENERS: &[&str] = if cfg!(target_os = "macos") { &["open"] } else { &["wslview", "xdg-open"] };

/// Opens the page if this machine has a display. It never waits, and says nothing if it fails: the address is on the
/// terminal.
pub(crate) fn open(url: &str) {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    if !io::stdout().is_terminal() || !has_display(set) {
        return;
    }
    let url = url.to_owned();
    // An opener may run as long as the browser does, and must be waited for.
    thread::spawn(move || {
        let started = OPENERS.iter().find_map(|opener| {
            let mut command = Command::new(opener);
            command.arg(&url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            // The opener gets a process group of its own, so that Ctrl-C ends wharf and not the browser.
            command.process_group(0).spawn().ok()
        });
        if let Some(mut opener) = started {
            let _ = opener.wait();
        }
    });
}

/// Whether the user can see a window. An SSH session has at best a display that is slow to draw on.
fn has_display(set: impl Fn(&str) -> bool) -> bool {
    if set("SSH_CONNECTION") {
        return false;
    }
    cfg!(target_os = "macos") || ["DISPLAY", "WAYLAND_DISPLAY", "WSL_DISTRO_NAME"].into_iter().any(set)
}

#[cfg(test)]
mod tests {
    use super::has_display;

    #[test]
    #[cfg(not(target_os = "macos"))]
    fn a_window_is_opened_only_where_somebody_sees_it() {
        let with = |names: &'static [&'static str]| has_display(|name| names.contains(&name));
        assert!(with(&["DISPLAY"]) && with(&["WAYLAND_DISPLAY"]) && with(&["WSL_DISTRO_NAME"]));
        assert!(!with(&[]));
        assert!(!with(&["DISPLAY", "SSH_CONNECTION"]));
    }
}
