//! What a file system promises about listings, told from its kind.

use std::os::fd::BorrowedFd;

use super::super::Medium;

/// Attribute caches of NFS and SMB clients live for up to 60 s by default (`acdirmax`, `actimeo`);
/// twice that, so that a cache filled just before the put is gone too.
const SETTLE_SECS: u32 = 120;

/// `f_type` of file systems whose folders only this kernel changes (linux/magic.h, and zfs and
/// bcachefs, which are not in it). Anything else may have other clients.
const LOCAL: [u64; 18] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
    0xf2f5_2010, // f2fs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0x794c_7630, // overlayfs
    0x3153_464a, // jfs
    0x5265_4973, // reiserfs
    0x3434,      // nilfs2
    0x4d44,      // vfat
    0x2011_bab0, // exfat
    0x7366_746e, // ntfs3
    0x482b,      // hfsplus
    0x1501_3346, // udf
    0xf15f,      // ecryptfs
];

pub(super) fn of_folder(folder: BorrowedFd<'_>) -> rustix::io::Result<Medium> {
    // The width and sign of f_type differ between architectures; the magic has 32 bits.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let kind = rustix::fs::fstatfs(folder)?.f_type as u64 & 0xffff_ffff;
    Ok(of_kind(kind))
}

fn of_kind(kind: u64) -> Medium {
    if LOCAL.contains(&kind) {
        Medium::Linearizable
    } else {
        Medium::Settles { secs: SETTLE_SECS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_file_systems_settle() {
        let nfs = 0x6969;
        let smb2 = 0xfe53_4d42;
        let cifs = 0xff53_4d42;
        let fuse = 0x6573_5546;
        for kind in [nfs, smb2, cifs, fuse] {
            assert_eq!(of_kind(kind), Medium::Settles { secs: 120 }, "{kind:x}");
        }
        assert_eq!(of_kind(0xef53), Medium::Linearizable);
    }
}
