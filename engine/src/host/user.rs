//! Root at work in the folders of another user.
//!
//! Whatever that user's podman says, and whatever links the user makes, root reads and writes only in
//! folders that are the user's own, or belong to one of the user's subordinate ids, as the layers of a
//! container do whose root is not the user: what the user could not do there, podkeep does not do either.
//! A folder is opened, looked at, and then reached by its descriptor alone.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use super::HostError;
use crate::fs::FsError;
use crate::podman::{Account, UserSession};

/// Another user than the caller, whose host is worked on.
pub(super) struct OtherUser {
    pub account: Account,
    /// Ends last: what the user's podman does needs it.
    _session: UserSession,
}

impl OtherUser {
    pub fn new(account: Account, session: UserSession) -> Self {
        Self {
            account,
            _session: session,
        }
    }

    pub fn folder(&self, path: &Path) -> Result<UserFolder, HostError> {
        UserFolders::of(&self.account).open(path)
    }
}

/// Which folders are a user's.
#[derive(Clone, Debug)]
pub(super) struct UserFolders(Account);

/// A folder of the user's, open.
pub(super) struct UserFolder {
    pub fd: OwnedFd,
}

impl UserFolders {
    pub fn of(account: &Account) -> Self {
        Self(account.clone())
    }

    /// Refuses a folder that is somebody else's.
    pub fn open(&self, path: &Path) -> Result<UserFolder, HostError> {
        let bytes = path.as_os_str().as_bytes();
        let failed = |errno| FsError::from_errno("open", bytes, errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        if !self.0.may_be(stat.st_uid) {
            return Err(HostError::Refused {
                object: path.display().to_string(),
                cause: format!(
                    "it belongs to user {}, and podkeep works for {} only in folders of that user",
                    stat.st_uid, self.0.name
                ),
                hint: "run it as root without --host".into(),
            });
        }
        Ok(UserFolder { fd })
    }
}

impl UserFolder {
    /// A path that leads to this very folder for as long as it is open.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}
