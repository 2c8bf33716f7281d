//! Archives that a real Podman wrote, imported and brought back onto it. What an image is, is told by
//! Podman; what a volume is, by `tests/lab/listing.sh`.

use crate::lab::{Driver, Suite};
use crate::shell::Shell;

/// Prefix of every script.
const WORDS: &str = r#"
export PODKEEP_REPO=${repository:-/var/tmp/repository} PODKEEP_PASSWORD=secret
cd /var/tmp
saved="localhost/odd/plain:1 localhost/odd/docker:1 localhost/odd/hardlinks:1"
# Of each image: ID, names, layers.
images() {
    podman image inspect --format '{{.Id}} {{.RepoTags}} {{.RootFS.Layers}}' $saved localhost/odd/names:1
}
data() { podman volume inspect "$1" --format '{{.Mountpoint}}'; }
listing() { bash /root/listing.sh "$(data "$1")" | tr '\0' '\n'; }
# The field of the last line, which has numbers and IDs alone.
field() { tail -n 1 | grep -o "\"$1\":\"\\?[0-9a-f]*" | grep -o '[0-9a-f]*$'; }
"#;

fn lab() -> Shell {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.bring(&["odd-images.py", "listing.sh"]);
    lab.ok("podkeep init > /dev/null");
    lab
}

#[test]
fn images_of_podman_save_come_back_and_share_all_with_a_backup_of_the_store() {
    let lab = lab();
    lab.ok("python3 /root/odd-images.py plain
         podman save -q -m -o three.tar $saved
         podman save -q --format oci-archive -o one.tar localhost/odd/names:1
         gzip -k three.tar");
    let before = lab.ok("images");
    assert_eq!(before.lines().count(), 4);
    let id = lab.ok("podkeep --json import three.tar.gz one.tar | field snapshot");

    // What a backup makes of the store then is stored already, and the other way round.
    let added = lab.ok("podkeep --json backup --all | field bytes_added");
    assert!(added.parse::<u64>().unwrap() < 50 << 10, "{added}");
    let added = lab.ok("repository=/var/tmp/second; export PODKEEP_REPO=$repository
         podkeep init > /dev/null
         podkeep backup -q --all
         cat three.tar | podkeep --json import - <(cat one.tar) | field bytes_added
         [ -z \"$(find /var/cache/podkeep -name 'piped*')\" ]");
    assert!(added.parse::<u64>().unwrap() < 50 << 10, "{added}");

    lab.ok("podman rmi -a -f > /dev/null");
    lab.ok(&format!("podkeep restore {id} --all > /dev/null"));
    assert_eq!(lab.ok("images"), before);
    // What the archive has of a manifest is kept; what is made for want of one hides nothing.
    lab.ok("tar xf one.tar index.json
         digest=$(grep -o '\"digest\":\"[^\"]*' index.json | cut -d '\"' -f 4)
         [ \"$(podman image inspect --format '{{.Digest}}' localhost/odd/names:1)\" = $digest ]
         podman image inspect localhost/odd/docker:1 | grep Healthcheck > /dev/null
         podman run --rm --network=none localhost/odd/plain:1 /bin/cat /srv/other > /dev/null");
}

/// What `podman volume export` has no place for: the volume's own directory, fractions of seconds,
/// ACLs and attributes but `user.`, and holes. `tar` has one for each.
#[test]
fn volumes_of_podman_and_of_tar_come_back_as_far_as_their_formats_go() {
    let lab = lab();
    lab.ok(r#"podman volume create web > /dev/null
         cd "$(data web)"
         chown 1000:1000 . && chmod 2750 .
         mkdir folder && chown 7:8 folder
         echo one > folder/one && chmod 4755 folder/one
         ln folder/one two && ln -s folder/one link && mkfifo fifo && mknod null c 1 3
         truncate -s 3M holes && echo end >> holes
         head -c 300000 /dev/urandom > noise
         python3 -c 'open("n" * 200, "w").write("long")'
         setfattr -n user.key -v value noise
         setfattr -n trusted.key -v value noise
         setfacl -m u:1000:r,g:12345:rw noise
         touch -d '2020-01-02 03:04:05.678901234' folder/one
         podman volume export web -o /var/tmp/exported.tar
         tar --format=pax --sparse --acls --xattrs --xattrs-include='*' -czf /var/tmp/packed.tar.gz .
         cd /var/tmp
         podkeep -q import --volume exported=exported.tar --volume packed=packed.tar.gz
         podkeep -q restore latest volume:exported volume:packed"#);
    lab.ok(
        "[ \"$(listing web)\" = \"$(listing packed)\" ] || diff <(listing web) <(listing packed)",
    );
    lab.ok(
        r#"held() {
             listing "$1" | sed -E 's/^(entry .*[0-9]+\.)[0-9]{10} /\1 /; /^entry .* \.$/d; /^sparse/d' |
                 grep -v -E ' (trusted|system)\.[a-z_]*='
         }
         held web | grep 'attribute noise user.key' > /dev/null
         diff <(held web) <(held exported)"#,
    );
}
