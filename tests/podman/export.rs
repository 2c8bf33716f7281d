//! What podkeep shows of images and exports, as Podman and GNU tar take it.

use crate::lab::{Driver, Suite};
use crate::shell::Shell;

const WORDS: &str = r#"
export PODKEEP_REPO=/root/repository PODKEEP_PASSWORD=secret
at() { podman volume inspect -f '{{.Mountpoint}}' "$1"; }
# Everything below a folder, with hashes, ACLs and other extended attributes.
list() {
    (cd "$1"
     find . -mindepth 1 -type d -printf '%P %y %m %U:%G %T@\n' \
         -o -mindepth 1 -printf '%P %y %m %U:%G %n %s %T@ %l\n' | LC_ALL=C sort
     find . -type f -exec sha256sum {} + | LC_ALL=C sort -k 2
     getfattr -R -h -d -m - . 2>/dev/null)
}
"#;

/// Odd images are shown as Podman mounts them, and what is exported of them is loaded as the same
/// images by Podman, which had none of their layers.
#[test]
fn images_are_shown_as_they_are_mounted_and_load_as_what_they_were() {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.bring(&["odd-images.py", "image-export.py"]);
    lab.ok("python3 /root/odd-images.py > /dev/null 2>&1
         podkeep init > /dev/null
         podkeep -q backup --all");
    let compared = lab.ok("python3 /root/image-export.py inside");
    assert!(compared.parse::<u32>().unwrap() > 200, "{compared}");
    // A glob means the images that have the path: here all but a manifest list, or just one.
    for (path, count) in [("/etc/passwd", "15"), ("/srv/other", "1")] {
        let list = format!("podkeep -q ls latest 'image:*:{path}' | wc -l");
        assert_eq!(lab.ok(&list), count);
    }
    assert_eq!(lab.ok("python3 /root/image-export.py export"), "15");
    let names = lab.ok("python3 /root/image-export.py load");
    for name in ["localhost/odd/tags:two", "localhost:5000/a/b:3"] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
}

#[test]
fn a_volume_is_exported_as_a_tar_that_podman_and_gnu_tar_read() {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.ok(r#"podkeep init > /dev/null
        podman volume create odd > /dev/null
        cd "$(at odd)"
        mkdir -p sub/empty
        printf hello > sub/file; ln sub/file link; ln -s ../x sub/symlink; mkfifo fifo; mknod dev c 1 3
        printf x > "$(printf 'caf\351')"
        long=$(printf 'n%.0s' $(seq 200))
        mkdir "$long"; printf y > "$long/$long"; ln "$long/$long" "$long-2"
        truncate -s 3M sparse; printf z >> sparse
        chmod 4755 sub/file; chown 70000:4000000000 sub/empty
        setfattr -n user.plain -v value sub
        setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= sparse
        setfacl -m u:1234:rw,g:99:r sub/file; setfacl -d -m u:55:rwx sub/empty
        touch -h -d '1969-12-31 12:00:00.25' sub/symlink
        touch -d '2001-02-03 04:05:06.123456789' sub
        podkeep -q backup volume:odd
        list "$(at odd)" > /root/odd"#);
    let same = lab.ok(r#"podkeep -q export latest volume:odd --tar /root/odd.tar
        podkeep export latest volume:odd --tar - | cmp - /root/odd.tar
        podman volume create again > /dev/null
        podman volume import again /root/odd.tar
        list "$(at again)" | diff /root/odd -
        mkdir /root/x
        tar -C /root/x --xattrs --xattrs-include='*' --numeric-owner -xpf /root/odd.tar 2> /dev/null
        list /root/x | diff /root/odd -
        # In words, too, for whoever takes no other attributes.
        mkdir /root/y
        tar -C /root/y --acls --numeric-owner -xpf /root/odd.tar 2> /dev/null
        getfacl -cnp /root/y/sub/file | grep 1234"#);
    assert_eq!(same, "user:1234:rw-");
}
