//! Containers' own files go from each storage driver to each: the root that a container sees is the
//! same before and after, by find, getfattr and sha256sum on its mount.

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

const WORDS: &str = r#"
export PODKEEP_REPO=/share/repository PODKEEP_PASSWORD=secret
# The root of a container, without what Podman itself mounts over.
root() {
    bash /root/listing.sh "$(podman mount "$1")" | tr '\0' '\n' |
        # An overlay counts a name that it hides; that a name is the same as itself says nothing.
        sed -E 's/^(entry [^d].*) links=[0-9]+ /\1 /' | awk '$1 != "same" || $2 != $3' |
        grep -v -E ' \./(etc/(hosts|resolv\.conf|hostname|mtab)|run/\.containerenv|run/secrets)( |$)'
    podman umount "$1" >/dev/null
}
"#;

/// An image of two layers with something to change in the upper one.
const IMAGE: &str = r#"
podman run --name base --network none localhost/lab:1 /bin/sh -c '
    mkdir -p /d/opaque/deep /d/gone/deep /d/to-file /d/to-link /d/moved/deep /d/linked
    for name in changed removed same opaque/deep/file gone/deep/file to-file/a to-link/a moved/deep/a to-directory names-one; do
        echo "image $name" > /d/$name
    done
    ln /d/names-one /d/names-two; ln -s same /d/link; ln -s linked /d/directory-link; ln -s nowhere /d/dangling'
setfattr -n user.image -v 1 "$(podman mount base)/d/changed"; podman umount base >/dev/null
podman commit -q base localhost/base:1 >/dev/null; podman rm base >/dev/null
podman save -q --format oci-archive -o /share/base.tar localhost/base:1
"#;

/// What a container does to it, and then its host, where busybox cannot.
const CHANGE: &str = r#"
podman run --name "$NAME" --network none localhost/base:1 /bin/sh -c '
    cd /d; echo more >> changed; rm removed; echo other > names-one; ln same same-too
    for name in opaque gone to-file to-link; do rm -r $name; done
    mkdir -m 2750 opaque; echo own > opaque/own; echo file > to-file; ln -s gone to-link
    rm to-directory; mkdir to-directory; echo in > to-directory/in; mkdir empty
    cp -a moved kept; rm -r moved; rm directory-link; mkdir directory-link; echo x > directory-link/x
    ln changed changed-too; mkfifo -m 640 fifo; mknod -m 600 node c 1 3; ln -s changed new-link
    chown 7:8 kept same; chmod 4755 to-file; touch -t 200101020304.05 kept/deep/a kept
    echo new > /srv-file; mkdir -p /var/lib/app; head -c 300000 /dev/urandom > /var/lib/app/data'
M=$(podman mount "$NAME")
setfattr -x user.image "$M/d/changed"; setfattr -n user.own -v 2 "$M/d/opaque" "$M/d/to-file"
setfacl -m u:1000:r "$M/d/opaque/own"; setcap cap_net_raw+ep "$M/srv-file"
truncate -s 1M "$M/d/sparse"; printf x | dd of="$M/d/sparse" bs=1 seek=900000 conv=notrunc 2>/dev/null
touch -d '2003-04-05 06:07:08.123456789' "$M/d/link" -h
podman umount "$NAME" >/dev/null
"#;

fn lab(driver: Driver, folder: &std::path::Path) -> Shell {
    let lab = Shell::up_sharing(Suite::Trixie, driver, folder, WORDS);
    lab.bring(&["listing.sh"]);
    lab
}

#[test]
fn own_files_of_containers_go_from_every_driver_to_every_driver() {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let hosts: Vec<(String, Shell)> = [Driver::Overlay, Driver::Vfs, Driver::Btrfs]
        .into_iter()
        .map(|driver| (driver.to_string(), lab(driver, folder.path())))
        .collect();
    let first = &hosts[0].1;
    first.host.image(Image::Busybox);
    first.ok(IMAGE);
    first.ok("podkeep init >/dev/null");
    let mut roots = Vec::new();
    for (driver, lab) in &hosts {
        if driver != "overlay" {
            lab.ok("podman load -q -i /share/base.tar >/dev/null");
        }
        lab.ok(&format!("NAME=of-{driver}\n{CHANGE}"));
        let root = lab.ok(&format!("root of-{driver}"));
        for part in [
            "attribute d/opaque user.own",
            "same ./d/same ./d/same-too",
            "sparse ./d/sparse",
        ] {
            assert!(root.contains(part), "{part} on {driver}: {root}");
        }
        assert!(!root.contains("./d/opaque/deep"), "{root}");
        roots.push(root);
        lab.ok(&format!(
            "podkeep backup container:of-{driver} >/dev/null; podman rm of-{driver} >/dev/null"
        ));
    }
    for (target, lab) in &hosts {
        for ((source, from), root) in hosts.iter().zip(&roots) {
            let name = &from.name;
            lab.ok(&format!(
                "podkeep restore latest@{name} container:of-{source}"
            ));
            let restored = lab.ok(&format!("root of-{source}"));
            let lines = |text: &str| {
                text.lines()
                    .map(str::to_owned)
                    .collect::<std::collections::BTreeSet<_>>()
            };
            let (was, is) = (lines(root), lines(&restored));
            let lost: Vec<_> = was.difference(&is).collect();
            let new: Vec<_> = is.difference(&was).collect();
            assert!(
                lost.is_empty() && new.is_empty(),
                "{source} to {target}: lost {lost:#?}, new {new:#?}"
            );
            // And it starts with them.
            lab.ok(&format!(
                "podman start of-{source} >/dev/null; podman wait of-{source} >/dev/null
                 podman rm of-{source} >/dev/null"
            ));
        }
    }
}
