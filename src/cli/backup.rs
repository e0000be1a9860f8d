//! `wharf backup` and `wharf restore`: save everything the server keeps in one file, and restore it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Args};
use serde_json::json;

use crate::{
    base::clock::Clock,
    cli::{
        self,
        api::Client,
        connection::Connection,
        failure::{Failure, Result},
        json, serve, text,
    },
    store::{
        Store,
        backup::{self, BackupError, Label},
        open::{KEY_FILE, unfinished},
    },
};

/// Save everything the server keeps to a file, while it runs
///
/// The backup is the server's state at one moment, even if changes go on meanwhile; it is checked before it gets its
/// name, and only its owner can read it. For super-admins.
///
/// The key that opens the secrets in it (passwords of registries, secret keys) never leaves a running server: also keep
/// a copy of the data directory's secret.key, apart from the backups. With --offline the key is in the backup.
#[derive(Args)]
pub(crate) struct Backup {
    #[command(flatten)]
    connection: Connection,
    /// The file to write; it must not exist yet
    file: PathBuf,
    /// Read this data directory, whose server is stopped, instead of asking a running one; its key is in the backup
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
}

/// Make a data directory from a backup
///
/// Every record is compared with what was saved. A directory that has a database already is refused.
#[derive(Args)]
pub(crate) struct Restore {
    /// The backup
    file: PathBuf,
    /// The directory to make; it must be empty or not exist yet
    #[arg(long, value_name = "DIR", default_value = serve::DATA_DIR)]
    data_dir: PathBuf,
    /// The secret.key of the server that was backed up; not needed if the key is in the backup
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long)]
    json: bool,
}

/// A file that has a temporary name until it is complete; it is removed if it is never completed.
struct Unfinished<'a> {
    path: PathBuf,
    wanted: &'a Path,
}

impl<'a> Unfinished<'a> {
    fn new(wanted: &'a Path) -> Result<Self> {
        let failed = |why: String| Failure::failed(wanted.display().to_string(), why);
        if wanted.try_exists().map_err(|why| failed(why.to_string()))? {
            return Err(
                failed("it is there already, and was left as it is".into()).remedy("name another file")
            );
        }
        let mut name = wanted.file_name().ok_or_else(|| failed("it names no file".into()))?.to_owned();
        name.push(format!(".{}.part", std::process::id()));
        Ok(Self { path: wanted.with_file_name(name), wanted })
    }

    fn finish(self) -> Result<()> {
        let folder = match self.wanted.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let named = fs::rename(&self.path, self.wanted).and_then(|()| File::open(folder)?.sync_all());
        named.map_err(|why| Failure::failed(self.wanted.display().to_string(), why.to_string()))
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn failed(why: &BackupError) -> Failure {
    Failure::failed("backup", why.to_string())
}

impl Backup {
    pub(crate) fn run(&self, matches: &ArgMatches) -> Result<()> {
        let unfinished = Unfinished::new(&self.file)?;
        let path = unfinished.path.clone();
        let save = async {
            let Some(directory) = self.offline.clone() else {
                let client = Client::new(&self.connection, matches)?;
                download(&client, &path).await?;
                // A file that was damaged or cut short on the way must not get the backup's name.
                return cli::aside(move || backup::check(&path).map_err(|why| failed(&why))).await;
            };
            let copy = move || {
                let store = Store::open_existing(&directory);
                let store = store.map_err(|why| Failure::failed("backup", why.to_string()))?;
                let key = directory.join(KEY_FILE);
                store.back_up(&path, Some(&key), Clock::system().now()).map_err(|why| failed(&why))
            };
            cli::aside(copy).await
        };
        // An unfinished file is removed when `unfinished` is dropped.
        let label = cli::until_stopped("backup", save, || ())?;
        unfinished.finish()?;
        told(&self.file, &label, self.connection.json, "saved to", |file| {
            if label.has_key() {
                format!(
                    "{file} holds everything, the key to its secrets too: whoever has it has them\nrestore it with: \
                     wharf restore {file} --data-dir DIR"
                )
            } else {
                format!(
                    "{file} holds everything but the key to its secrets: keep secret.key from the server's data \
                     directory too\nrestore it with: wharf restore {file} --data-dir DIR --key-file secret.key"
                )
            }
        })
    }
}

impl Restore {
    pub(crate) fn run(&self) -> Result<()> {
        let (file, data_dir, key_file) = (self.file.clone(), self.data_dir.clone(), self.key_file.clone());
        let restore = move || {
            let restored = backup::restore(&file, &data_dir, key_file.as_deref());
            restored.map_err(|why| Failure::failed("restore", why.to_string()))
        };
        let tidy = || drop(fs::remove_file(unfinished(&self.data_dir)));
        let label = cli::until_stopped("restore", cli::aside(restore), tidy)?;
        told(&self.data_dir, &label, self.json, "restored to", |place| {
            format!("start it with: wharf serve --data-dir {place}")
        })
    }
}

fn told(
    place: &Path,
    label: &Label,
    as_json: bool,
    done: &str,
    next: impl FnOnce(&str) -> String,
) -> Result<()> {
    let place = place.display().to_string();
    if as_json {
        return json::print(&json!({
            "place": place, "records": label.records, "taken_at": label.taken_at.to_string(),
            "version": label.version, "has_key": label.has_key(),
        }));
    }
    let moment = label.taken_at.strftime("%Y-%m-%d %H:%M:%S UTC");
    let place = text::one_line(&place);
    cli::print(&format!("{} records of {moment} {done} {place}\n{}", label.records, next(&place)))
}

async fn download(client: &Client, path: &Path) -> Result<()> {
    let failed = |why: io::Error| {
        let failure = Failure::failed(path.display().to_string(), why.to_string());
        if why.kind() == io::ErrorKind::StorageFull {
            return failure.remedy("free some space there, or name a file on another disk");
        }
        failure
    };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    let mut pieces = client.backup().await?;
    while let Some(piece) = client.next_piece(&mut pieces).await? {
        file.write_all(&piece).map_err(failed)?;
    }
    file.sync_all().map_err(failed)
}
