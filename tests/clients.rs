//! The official clients of seven years against the running binary and a real registry: what their users do.

/// Runs one area's trial with each release. They run at once, each with a server of its own.
macro_rules! for_each_release {
    ($area:expr, $day:path) => {
        for_each_release!($area, $day,
            with_20_3_10 "20.3.10", with_21_9_5 "21.9.5", with_22_3_2 "22.3.2", with_23_9_10 "23.9.10",
            with_24_9_14 "24.9.14", with_25_19_2 "25.19.2", with_26_9_6 "26.9.6");
    };
    ($area:expr, $day:path, $($name:ident $version:literal),*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let Some(trial) = $crate::clients::trial::Trial::start($area, $version).await else { return };
                $day(trial).await;
            }
        )*
    };
}

mod agents;
mod images;
mod registries;
mod rest;
mod rows;
mod sessions;
mod table;
mod tenants;
mod trial;

use crate::support::app::App;
use crate::support::client::Client;

/// All other trials use one loaded client; this one runs the program itself, as installed.
#[tokio::test]
async fn the_installed_program_works_as_the_loaded_one_does() {
    for version in rows::RELEASES {
        let Some(client) = Client::find(version).await else { return };
        let app = App::start().await;
        let arguments =
            if version == "20.3.10" { ["admin", "images"].as_slice() } else { &["admin", "image", "list"] };
        let outcome = client.run(&app, arguments).await;
        assert_eq!(outcome.code, 0, "{version}: {}", outcome.text());
        assert!(!outcome.text().contains("Warning"), "{version}: {}", outcome.text());
    }
}
