//! Two users and one folder: one runs the daemon, the other is root or a user without rights. Files that a command
//! leaves must belong to the daemon's user. Needs root and `setpriv`; skipped with a message otherwise.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::daemon::{Daemon, run, user_prefix};
use crate::support::http;
use crate::support::ws::{Client, Options};
use crate::support::{PATIENCE, eventually, shared};

/// The daemon's user id, as under systemd's `DynamicUser`: on most machines it has no name.
const THEIRS: u32 = 61_184;
/// A user without any rights on the daemon.
const STRANGER: u32 = 61_185;

/// Returns true if a test with two users can run here.
fn two_users(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    let setpriv = || Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok();
    if root && setpriv() {
        return true;
    }
    eprintln!("SKIPPED {test}: needs root and setpriv");
    false
}

/// Runs a command of the daemon's binary as `uid`, to its end.
fn run_as(daemon: &Daemon, uid: u32, args: &[&str]) -> Output {
    let prefix = user_prefix(uid);
    let mut command = Command::new(&prefix[0]);
    command.args(&prefix[1..]).arg(daemon.binary()).args(args).arg("--config").arg(daemon.config_path());
    command.stdin(Stdio::null()).output().expect("run the binary")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every path below `folder`, with its owner and mode.
fn owners(folder: &Path) -> BTreeMap<String, (u32, u32)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder") {
            let path = entry.expect("entry").path();
            let meta = std::fs::symlink_metadata(&path).expect("metadata");
            if meta.is_dir() {
                folders.push(path.clone());
            }
            found.insert(path.display().to_string(), (meta.uid(), meta.mode() & 0o777));
        }
    }
    found
}

/// Runs a key command as root; returns its output.
async fn as_root(daemon: &Daemon, words: &[&str]) -> String {
    let config = daemon.config_path().display().to_string();
    let output = run(&[words, &["--config", &config]].concat()).await;
    assert!(output.status.success(), "{words:?}: {}", stderr(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn status(daemon: &Daemon, path: &str, key: &str) -> u16 {
    http::request(daemon.port, "GET", path, &[("authorization", key)], None).await.status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_made_by_root_work_in_a_daemon_of_another_user() {
    if !two_users("keys_made_by_root_work_in_a_daemon_of_another_user") {
        return;
    }
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    // A variable that is set for the daemon's unit, and not in root's shell.
    let config = "[endpoints.a]\nprovider = \"openai\"\napi_key = \"env:ONLY_THE_DAEMON_HAS_THIS\"\n\
                  [models.m]\ncandidates = [\"a/x\"]\n";
    let mut daemon = Daemon::prepare(config, dir.path()).run_by(THEIRS).with_env("ONLY_THE_DAEMON_HAS_THIS", "x");
    daemon.up().await;
    let key = as_root(&daemon, &["key", "create", "--name", "agent", "--scope", "subscribe"]).await.trim().to_owned();
    assert_eq!(status(&daemon, "/v1/calls", &key).await, 200, "{}", daemon.stderr_tail());
    let headers = vec![("authorization".to_owned(), key.clone())];
    let mut socket = Client::try_connect(&daemon.ws("/v1/subscribe"), &Options { headers, receive_buffer: None })
        .await
        .expect("let in");
    socket.of_type("welcome").await;
    let listed = as_root(&daemon, &["key", "list"]).await;
    let journal = dir.path().join("journal");
    assert!(listed.contains("agent") && listed.contains(&journal.display().to_string()), "{listed}");
    as_root(&daemon, &["key", "revoke", "agent"]).await;
    assert_eq!(status(&daemon, "/v1/calls", &key).await, 401, "at once");
    assert_eq!(socket.close_code().await, 4401);
    for (path, (uid, mode)) in owners(&journal) {
        assert_eq!(uid, THEIRS, "{path} is not the daemon's own");
        let keys = path.contains("/journal/keys.") || path.ends_with("admin.sock");
        assert!(!keys || mode == 0o600, "{path} has mode {mode:o}");
    }
    assert_eq!(daemon.get("/readyz").await.status, 200);
    daemon.restart().await;
    assert_eq!(daemon.get("/v1/calls").await.status, 401, "the revoked key still closes the daemon");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_made_before_the_first_start_belong_to_the_folders_owner() {
    if !two_users("keys_made_before_the_first_start_belong_to_the_folders_owner") {
        return;
    }
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare("", dir.path()).run_by(THEIRS);
    let key = as_root(&daemon, &["key", "create", "--name", "agent", "--scope", "subscribe"]).await.trim().to_owned();
    let journal = dir.path().join("journal");
    let meta = std::fs::metadata(&journal).expect("made");
    assert_eq!((meta.uid(), meta.mode() & 0o777), (THEIRS, 0o700));
    let made = owners(&journal);
    assert!(!made.is_empty());
    for (path, (uid, mode)) in made {
        assert_eq!((uid, mode), (THEIRS, 0o600), "{path}");
    }
    daemon.up().await;
    assert_eq!(status(&daemon, "/v1/calls", &key).await, 200);
    daemon.kill9();
    // A killed daemon leaves its socket; commands notice that nothing listens on it.
    as_root(&daemon, &["key", "revoke", "agent"]).await;
    daemon.up().await;
    assert_eq!(status(&daemon, "/v1/calls", &key).await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreadable_key_file_makes_the_daemon_unready_and_names_itself() {
    if !two_users("unreadable_key_file_makes_the_daemon_unready_and_names_itself") {
        return;
    }
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare("", dir.path()).run_by(THEIRS);
    daemon.up().await;
    as_root(&daemon, &["key", "create", "--name", "agent", "--scope", "subscribe"]).await;
    let file = dir.path().join("journal/keys.json");
    let whole = std::fs::read_to_string(&file).expect("file");
    // A file as an older version left it: owned by root. And one that is not a key file.
    for (write, owner, told) in [(&whole, 0, "root"), (&"{nonsense".to_owned(), THEIRS, "not a key file")] {
        std::fs::remove_file(&file).expect("removed");
        std::fs::write(&file, write).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("mode");
        chown(&file, Some(owner), Some(owner)).expect("owner");
        let reply = eventually("not ready", PATIENCE, || async {
            let reply = daemon.get("/readyz").await;
            (reply.status == 503).then_some(reply)
        })
        .await;
        let detail = reply.json()["detail"].as_str().expect("a reason").to_owned();
        assert!(detail.contains(&file.display().to_string()) && detail.contains(told), "{detail}");
        assert_eq!(daemon.get("/healthz").await.status, 200);
        std::fs::write(&file, &whole).expect("written");
        chown(&file, Some(THEIRS), Some(THEIRS)).expect("owner");
        eventually("ready", PATIENCE, || async { (daemon.get("/readyz").await.status == 200).then_some(()) }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_of_another_user_is_named_before_anything_is_written() {
    if !two_users("folder_of_another_user_is_named_before_anything_is_written") {
        return;
    }
    let _machine = shared().await;
    let create = ["key", "create", "--name", "agent", "--scope", "ingest"];
    // The folder's owner, the user of the command, and the command's words. The data folder exists, or would be
    // created.
    for (owner, runs, words) in [
        (0, STRANGER, &["serve", "--listen", "127.0.0.1:0"][..]),
        (0, STRANGER, &create),
        (THEIRS, STRANGER, &create),
        (THEIRS, STRANGER, &["key", "revoke", "agent"]),
        (THEIRS, STRANGER, &["serve", "--listen", "127.0.0.1:0"]),
        (THEIRS, 0, &["serve", "--listen", "127.0.0.1:0"]),
    ] {
        for exists in [true, false] {
            let dir = tempfile::tempdir().expect("folder");
            let daemon = Daemon::prepare("", dir.path()).run_by(owner);
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("mode");
            let mut named = dir.path().to_owned();
            if exists {
                named = named.join("journal");
                std::fs::create_dir(&named).expect("made");
                chown(&named, Some(owner), Some(owner)).expect("owner");
            }
            let before = owners(dir.path());
            let output = run_as(&daemon, runs, words);
            let told = stderr(&output);
            assert!(!output.status.success(), "{words:?} as {runs} in a folder of {owner}: {told}");
            assert!(told.contains(&format!("{} belongs to", named.display())), "{words:?}: {told}");
            assert!(told.contains(&format!("uid {owner}")) && told.contains(&format!("uid {runs}")), "{told}");
            assert_eq!(owners(dir.path()), before, "{words:?} as {runs} wrote something");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admin_socket_refuses_everybody_but_root_and_its_own_user() {
    if !two_users("admin_socket_refuses_everybody_but_root_and_its_own_user") {
        return;
    }
    let _machine = shared().await;
    let dir = tempfile::tempdir().expect("folder");
    let mut daemon = Daemon::prepare("", dir.path()).run_by(THEIRS);
    daemon.up().await;
    let own = run_as(&daemon, THEIRS, &["key", "create", "--name", "own", "--scope", "ingest"]);
    assert!(own.status.success(), "{}", stderr(&own));
    let socket = dir.path().join("journal/admin.sock");
    assert_eq!(std::fs::metadata(&socket).expect("socket").mode() & 0o777, 0o600);
    // Even if somebody has changed the modes of the folder and the socket.
    for (path, mode) in [(dir.path(), 0o755), (&dir.path().join("journal"), 0o755), (&socket, 0o666)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("mode");
    }
    for words in
        [&["key", "list"][..], &["key", "create", "--name", "intruder", "--scope", "admin"], &["key", "revoke", "own"]]
    {
        let output = run_as(&daemon, STRANGER, words);
        let told = stderr(&output);
        assert!(!output.status.success() && told.contains(&format!("uid {STRANGER}")), "{words:?}: {told}");
        assert!(output.stdout.is_empty(), "{words:?}");
    }
    let listed = as_root(&daemon, &["key", "list"]).await;
    assert!(listed.contains("own") && !listed.contains("intruder"), "{listed}");
}
