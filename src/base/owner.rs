//! The owner of a folder: the data of one daemon belongs to one user, and a file that another user (such as root, by a
//! command) creates in it could not be read by the daemon.
//!
//! Knows no file contents. User names come only from `/etc/passwd`; users of other sources are shown as numbers.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Gid, Uid, accessat, chown};
use rustix::process::geteuid;

/// The folder belongs to another user than the one that runs this process.
#[derive(Debug, thiserror::Error)]
#[error(
    "{folder} belongs to {owner}, but this program runs as {us}; nothing was written. Run it as {owner}{or_root}, or \
     choose another folder",
    folder = folder.display(), owner = user(*owner), us = user(*us), or_root = if *us == 0 || *owner == 0 { "" } else { " or as root" }
)]
pub struct Foreign {
    /// The folder, or its nearest existing parent.
    pub folder: PathBuf,
    /// User id of the folder's owner.
    pub owner: u32,
    /// The user id of this process.
    pub us: u32,
}

/// The owner to give to new files when root writes on behalf of a folder's owner.
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

/// Checks that files that this process creates in `folder`, which need not exist, will belong to the folder's owner.
///
/// # Errors
/// The folder belongs to another user. This is also an error if the process runs as root, because the owner could not
/// read root's files.
pub fn check(folder: &Path) -> Result<(), Foreign> {
    match writer(folder)? {
        None => Ok(()),
        Some(owner) => Err(Foreign { folder: nearest(folder).0, owner: owner.uid, us: effective_uid() }),
    }
}

/// The owner that files of this process must get in `folder`, which need not exist; `None` if no change is needed.
///
/// # Errors
/// The folder belongs to another user, and this process is not root.
pub fn writer(folder: &Path) -> Result<Option<Owner>, Foreign> {
    let (nearest, meta) = nearest(folder);
    let Some(meta) = meta else { return Ok(None) };
    let us = effective_uid();
    // In a folder that everybody may write to, a new folder belongs to its creator.
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

/// The owner that a single file must get when root creates it in any folder: the folder's owner, so that root's
/// commands leave no file there that the owner cannot read. `None` if no change is needed.
pub fn heir(folder: &Path) -> Option<Owner> {
    let meta = fs::metadata(folder).ok()?;
    let is_shared = meta.mode() & 0o002 != 0;
    (effective_uid() == 0 && meta.uid() != 0 && !is_shared).then(|| Owner { uid: meta.uid(), gid: meta.gid() })
}

/// The folder, or its nearest existing parent.
fn nearest(folder: &Path) -> (PathBuf, Option<fs::Metadata>) {
    let found = folder.ancestors().filter(|at| !at.as_os_str().is_empty());
    let found = found.filter_map(|at| Some((at.to_owned(), fs::metadata(at).ok()?))).next();
    found.map_or_else(|| (folder.to_owned(), None), |(at, meta)| (at, Some(meta)))
}

/// Creates `folder` and its missing parents, accessible only to their owner.
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

/// Changes the owner of a file or folder; does nothing without `owner`.
///
/// # Errors
/// The system refuses.
pub fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    let Some(Owner { uid, gid }) = owner else { return Ok(()) };
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    Ok(())
}

/// Makes a file accessible only to its owner.
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

    /// Needs root: files in another user's folder are either created for that user or not at all.
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
        // Anybody may create folders in a shared folder.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o1777)).expect("shared");
        assert_eq!(writer(&dir.path().join("own")).expect("shared"), None);
        assert_eq!(heir(dir.path()), None);
    }
}
