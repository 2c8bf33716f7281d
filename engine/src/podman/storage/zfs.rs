//! Data sets of ZFS, which Podman's driver mounts only while a container or a mount needs them.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// The root of a data set, mounted at no place, for as long as it or something below it is open: there
/// is nothing that a killed process could leave behind. It is read-only by this mount alone. A file
/// system that is read-only as a whole is one that Podman cannot mount to write to meanwhile.
pub(super) fn mounted(data_set: &str) -> Result<OwnedFd, Errno> {
    let context = fsopen("zfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", data_set)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NOATIME;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}
