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
registry() {
    cat > /root/registry.yml <<'E'
version: 0.1
storage: {filesystem: {rootdirectory: /root/registry}}
http: {addr: 127.0.0.1:5000}
E
    setsid docker-registry serve /root/registry.yml > /root/registry.log 2>&1 < /dev/null &
    printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' \
        > /etc/containers/registries.conf.d/lab.conf
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
    for (path, count) in [("/etc/passwd", "18"), ("/srv/other", "1")] {
        let list = format!("podkeep -q ls latest 'image:*:{path}' | wc -l");
        assert_eq!(lab.ok(&list), count);
    }
    // Every layer with a tar-split was made again from it and has its DiffID.
    let store = "cd /var/lib/containers/storage/overlay-layers; ls *.tar-split.gz | wc -l";
    let layers: u32 = lab.ok(store).parse().unwrap();
    let exported = lab.ok("python3 /root/image-export.py export");
    assert_eq!(exported, format!("18 {layers}"));
    assert!(layers > 30, "{layers}");
    eprintln!("{layers} of {layers} layers rebuilt to their DiffID");
    let names = lab.ok("python3 /root/image-export.py load");
    for name in ["localhost/odd/tags:two", "localhost:5000/a/b:3"] {
        assert!(names.lines().any(|line| line == name), "{names}");
    }
}

/// Pushed by skopeo, or by Podman where there is none: into a registry, from which Podman pulls the
/// same image. Layers are compressed anew, in the same way each time.
#[test]
fn i_14_a_pushed_image_has_the_same_digest_each_time_and_another_one_is_told() {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.bring(&["odd-images.py"]);
    lab.ok(r#"registry
        python3 /root/odd-images.py plain > /dev/null 2>&1
        podkeep init > /dev/null
        podkeep -q backup --all"#);
    let pushed = |name: &str, to: &str| {
        let told = format!(
            r#"podkeep --json export latest image:localhost/odd/{name}:1 --push 127.0.0.1:5000/{to} > /root/told
            jq -r 'select(.type == "finding").message' /root/told >&2
            grep -q 'compressed digest not reproducible' /root/told
            jq -r 'select(.type == "summary").digest' /root/told"#
        );
        lab.ok(&told)
    };
    let by_skopeo = ["a/plain:1", "b/plain:2"].map(|to| pushed("plain", to));
    assert_eq!(by_skopeo[0], by_skopeo[1]);
    let docker = pushed("docker", "a/docker:1");
    lab.ok("rm $(which skopeo)");
    // From the store, and after the image was taken out of it: nothing of that stays.
    let from_store = pushed("plain", "c/plain:1");
    let ids = lab.ok("podman images -a -q --no-trunc | sort -u");
    let id = lab.ok("podman image inspect --format '{{.Id}}' localhost/odd/plain:1");
    lab.ok("podman rmi -a -f > /dev/null; rm -rf /var/lib/containers/cache");
    let loaded = ["d/plain:1", "e/plain:1"].map(|to| pushed("plain", to));
    assert_eq!(loaded[0], loaded[1]);
    assert_eq!(lab.ok("podman images -a -q"), "");
    // What the registry has is the image.
    for (to, digest) in [
        ("a/plain:1", &by_skopeo[0]),
        ("c/plain:1", &from_store),
        ("d/plain:1", &loaded[0]),
    ] {
        let pulled = format!(
            "podman pull -q 127.0.0.1:5000/{to} > /dev/null
             podman image inspect --format '{{{{.Id}}}} {{{{.Digest}}}}' 127.0.0.1:5000/{to}"
        );
        assert_eq!(lab.ok(&pulled), format!("{id} {digest}"));
    }
    let pulled = lab.ok("podman pull -q 127.0.0.1:5000/a/docker:1");
    assert!(
        ids.contains(&pulled) && docker.starts_with("sha256:"),
        "{pulled}: {ids}"
    );
    // A place where no registry is.
    lab.says(
        "podkeep export latest image:odd/plain:1 --push 127.0.0.1:5001/x:1",
        1,
        &["cannot push image", "5001"],
    );
    assert_eq!(
        lab.ok("podman images -a -q | wc -l; ls /var/lib/podkeep/images"),
        "2"
    );
}

/// In a composefs store files lie under their digests, whatever form a layer was pulled in. What makes the
/// images that give them their names is not in Debian: an empty one will do for all but to run them there.
#[test]
fn i_13_an_image_of_a_composefs_store_is_saved_as_what_it_is() {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.bring(&["odd-images.py"]);
    lab.ok(r#"registry
        python3 /root/odd-images.py plain > /dev/null 2>&1
        podman push -q --compression-format zstd:chunked --format oci localhost/odd/plain:1 127.0.0.1:5000/plain:1
        podman push -q localhost/odd/hardlinks:1 127.0.0.1:5000/links:1
        podman rmi -a -f > /dev/null
        printf '#!/bin/bash\ncat > /dev/null; head -c 4096 /dev/zero\n' > /usr/local/bin/mkcomposefs
        chmod +x /usr/local/bin/mkcomposefs
        cp /etc/containers/storage.conf /root
        cat >> /etc/containers/storage.conf <<'E'
[storage.options]
pull_options = {enable_partial_images = "true", convert_images = "true"}
[storage.options.overlay]
use_composefs = "true"
E
        podman pull -q 127.0.0.1:5000/plain:1 127.0.0.1:5000/links:1 > /dev/null"#);
    let shown = "podman image inspect 127.0.0.1:5000/plain:1 127.0.0.1:5000/links:1 \
        --format '{{.Id}} {{.Digest}} {{.RepoTags}} {{.RepoDigests}} {{.RootFS.Layers}}'";
    let original = lab.ok(shown);
    let made = "find /var/lib/containers/storage/overlay -name composefs.blob | wc -l";
    assert_eq!(lab.ok(made), "7");
    lab.ok("podkeep init > /dev/null; podkeep doctor; podkeep backup 'image:*'");
    lab.ok(
        "podman rmi -a -f > /dev/null; cp /root/storage.conf /etc/containers/storage.conf
         podkeep restore latest 'image:*'",
    );
    assert_eq!(lab.ok(shown), original);
    assert_eq!(lab.ok(made), "0");
    lab.ok("podman run --rm --network=none 127.0.0.1:5000/plain:1 /bin/cat /srv/other > /dev/null");
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
