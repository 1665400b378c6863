//! Who owns a folder: the data of one daemon belongs to one user, and a file that another user leaves in it (root, by a
//! command) is a file that the daemon cannot read.
//!
//! Knows no content. Names of users come from `/etc/passwd` alone; users of other sources are shown as numbers.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Gid, Uid, accessat, chown};
use rustix::process::geteuid;

/// A folder that belongs to another user than this process runs as.
#[derive(Debug, thiserror::Error)]
#[error(
    "{folder} belongs to {owner}, and this runs as {us}; nothing was written. Run it as {owner}{or_root}, or name \
     another folder",
    folder = folder.display(), owner = user(*owner), us = user(*us), or_root = if *us == 0 || *owner == 0 { "" } else { " or as root" }
)]
pub struct Foreign {
    /// The folder, or the nearest one above it that exists.
    pub folder: PathBuf,
    /// Its owner's user id.
    pub owner: u32,
    /// The user id of this process.
    pub us: u32,
}

/// Whose files new ones become where root writes on behalf of a folder's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

/// The user id of this process.
pub fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// `nobody (uid 65534)`, or `uid 61234` for a user that `/etc/passwd` does not list.
pub fn user(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.map_or_else(|| format!("uid {uid}"), |name| format!("{name} (uid {uid})"))
}

/// Checks that what this process writes into `folder`, which need not exist, belongs to the folder's owner.
///
/// # Errors
/// The folder is another user's, also where this process is root: files that root leaves there are closed to the owner.
pub fn check(folder: &Path) -> Result<(), Foreign> {
    match writer(folder)? {
        None => Ok(()),
        Some(owner) => Err(Foreign { folder: nearest(folder).0, owner: owner.uid, us: effective_uid() }),
    }
}

/// Whose files this process has to make in `folder`, which need not exist; `None`: its own.
///
/// # Errors
/// The folder is another user's, and this process is not root.
pub fn writer(folder: &Path) -> Result<Option<Owner>, Foreign> {
    let (nearest, meta) = nearest(folder);
    let Some(meta) = meta else { return Ok(None) };
    let us = effective_uid();
    // In a folder that everybody may write to, a new folder is its maker's.
    let is_shared = nearest != folder && meta.mode() & 0o002 != 0;
    if meta.uid() == us || is_shared {
        return Ok(None);
    }
    if us == 0 {
        return Ok(Some(Owner { uid: meta.uid(), gid: meta.gid() }));
    }
    let may_write = || accessat(CWD, &nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    if nearest != folder && may_write() { Ok(None) } else { Err(Foreign { folder: nearest, owner: meta.uid(), us }) }
}

/// Whose a single file becomes that root makes in a folder, which may be any: its owner's, so that root's commands leave
/// nothing there that the owner cannot read. `None`: the maker's own.
pub fn heir(folder: &Path) -> Option<Owner> {
    let meta = fs::metadata(folder).ok()?;
    let is_shared = meta.mode() & 0o002 != 0;
    (effective_uid() == 0 && meta.uid() != 0 && !is_shared).then(|| Owner { uid: meta.uid(), gid: meta.gid() })
}

/// The folder, or the nearest one above it that exists.
fn nearest(folder: &Path) -> (PathBuf, Option<fs::Metadata>) {
    let found = folder.ancestors().filter(|at| !at.as_os_str().is_empty());
    let found = found.filter_map(|at| Some((at.to_owned(), fs::metadata(at).ok()?))).next();
    found.map_or_else(|| (folder.to_owned(), None), |(at, meta)| (at, Some(meta)))
}

/// Makes `folder` and what is missing above it, open to its owner alone.
///
/// # Errors
/// The system refuses.
pub fn create_folder(folder: &Path, owner: Option<Owner>) -> io::Result<()> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists()).collect();
    for at in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(at) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => {
                made?;
                give(at, owner)?;
            }
        }
    }
    Ok(())
}

/// Makes a file or folder the owner's; does nothing without one.
///
/// # Errors
/// The system refuses.
pub fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    let Some(Owner { uid, gid }) = owner else { return Ok(()) };
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(())
}

/// Lets the owner alone use a file.
///
/// # Errors
/// The system refuses.
pub fn make_private(path: &Path) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_known_to_passwd_has_a_name() {
        assert_eq!(user(0), "root (uid 0)");
        assert_eq!(user(4_000_000_123), "uid 4000000123");
    }

    #[test]
    fn missing_folders_are_made_private() {
        let dir = tempfile::tempdir().expect("folder");
        let folder = dir.path().join("a/b");
        check(&folder).expect("ours");
        create_folder(&folder, writer(&folder).expect("ours")).expect("made");
        create_folder(&folder, None).expect("is there");
        for at in [dir.path().join("a"), folder] {
            assert_eq!(fs::metadata(at).expect("folder").mode() & 0o777, 0o700);
        }
    }

    /// Needs root: another user's folder is written to on that user's behalf, or not at all.
    #[test]
    fn root_writes_for_the_owner_of_a_folder() {
        if effective_uid() != 0 {
            eprintln!("SKIPPED root_writes_for_the_owner_of_a_folder: needs root");
            return;
        }
        let dir = tempfile::tempdir().expect("folder");
        let theirs = Owner { uid: 65_534, gid: 65_534 };
        give(dir.path(), Some(theirs)).expect("given");
        for folder in [dir.path().to_owned(), dir.path().join("state/journal")] {
            assert_eq!(writer(&folder).expect("root may"), Some(theirs));
            let error = check(&folder).expect_err("another user's");
            assert_eq!((error.folder.as_path(), error.owner), (dir.path(), 65_534));
            create_folder(&folder, Some(theirs)).expect("made");
            assert_eq!(fs::metadata(&folder).expect("folder").uid(), 65_534);
        }
        assert_eq!(heir(dir.path()), Some(theirs));
        // A shared folder takes anybody's new folders.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("shared");
        assert_eq!(writer(&dir.path().join("own")).expect("shared"), None);
        assert_eq!(heir(dir.path()), None);
    }
}
