//! Repositories behind ssh, with a real sshd on a real host: what people's configurations, shells,
//! disks and links do to it. The host reaches itself; its logins are other machines for all that ssh
//! knows.

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};

use crate::lab::{Driver, Host, Outcome, Suite};

/// sshd on two ports, logins of all kinds, and what root's ssh knows of them.
const SETUP: &str = r#"
mkdir -p /run/sshd /srv/far /root/.ssh
mount -t tmpfs -o size=900m,mode=1777 far /srv/far
ssh-keygen -A > /dev/null
ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
# `fresh` is for the test alone that looks at what is put there.
for login in bk fresh noisy loud forced noexec; do useradd -m -s /bin/bash $login; done
useradd -m -s /bin/rbash restricted
for login in bk fresh noisy loud forced noexec restricted; do
    usermod -p '*' $login
    install -d -m 700 -o $login -g $login /home/$login/.ssh
    install -m 600 -o $login -g $login /root/.ssh/id_ed25519.pub /home/$login/.ssh/authorized_keys
done
# What shells print when nobody is at the terminal.
{ echo 'echo Welcome to web1'; echo "printf '\033[31mred\033[0m\n\n'"; echo 'echo more >&2'
} > /home/noisy/.bashrc
echo 'head -c 70000 /dev/zero | tr "\0" "n"' > /home/loud/.bashrc
key=$(cat /root/.ssh/id_ed25519.pub)
echo "command=\"/usr/local/bin/podkeep agent --restrict-to /srv/far/forced --append-only\",restrict $key" \
    > /home/forced/.ssh/authorized_keys
/usr/sbin/sshd -o Port=2222 -o Port=2223 -o MaxStartups=100 -o MaxSessions=100
for try in $(seq 50); do ssh-keyscan -p 2223 127.0.0.1 2> /dev/null | grep -q . && break; sleep 0.1; done
{ ssh-keyscan -p 2222 127.0.0.1; ssh-keyscan -p 2223 127.0.0.1; ssh-keyscan -p 2222 ::1
} > /root/.ssh/known_hosts 2> /dev/null
cat > /root/.ssh/config <<END
Host far behind long
    HostName 127.0.0.1
    Port 2222
    User bk
Host behind
    Port 2223
    ProxyJump far
Host long
    ControlMaster auto
    ControlPath /tmp/$(printf 'x%.0s' $(seq 100))
END
mkdir -p /root/data; head -c 3000000 /dev/urandom > /root/data/file; echo text > /root/data/text
"#;

/// Prefix of every script.
const WORDS: &str = r#"
export PODKEEP_PASSWORD=secret PODKEEP_CACHE_DIR=$(mktemp -d) LC_ALL=C.UTF-8
# Ends as it should, and says what it should: says CODE WORDS COMMAND...
says() {
    code=0; said=$("${@:3}" 2>&1 < /dev/null) || code=$?
    [ $code = $1 ] || { echo "code $code, not $1, of: ${*:3}: $said"; exit 1; }
    case $said in *"$2"*) ;; *) echo "no '$2' in: $said"; exit 1 ;; esac
}
gone() { for try in $(seq 100); do pgrep -u "$1" -f 'podkeep.* agent|agent-' > /dev/null || return 0; sleep 0.1; done
    echo "the agent of $1 outlives its peer"; exit 1; }
"#;

/// The host that all tests of this file share while one of them runs.
fn host() -> Arc<Host> {
    static SHARED: Mutex<Weak<Host>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(|broken| broken.into_inner());
    if let Some(host) = shared.upgrade() {
        return host;
    }
    let host = Host::up(Suite::Trixie, Driver::Overlay);
    host.install_podkeep();
    host.put(&static_podkeep(), "/usr/local/bin/podkeep-static");
    host.script(SETUP);
    let host = Arc::new(host);
    *shared = Arc::downgrade(&host);
    host
}

/// What `tests/static.sh` built.
pub fn static_podkeep() -> std::path::PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_podkeep"))
        .parent()
        .and_then(Path::parent)
        .map(|target| target.join("static/podkeep"))
        .expect("the binary lies in target/debug");
    assert!(
        built.is_file(),
        "there is no {}: tests/static.sh --debug builds it",
        built.display()
    );
    built
}

#[track_caller]
fn run(host: &Host, script: &str) -> String {
    let script = format!("{WORDS}\n{script}");
    let outcome: Outcome = host.run(&["bash", "-euo", "pipefail", "-c", &script]);
    assert_eq!(outcome.code, 0, "{script}: {outcome:?}");
    outcome.text()
}

#[test]
fn t_01_what_a_shell_prints_is_passed_over_or_shown() {
    let host = host();
    run(
        &host,
        r#"
        export PODKEEP_REPO=ssh://noisy@127.0.0.1:2222/srv/far/noisy
        podkeep init > /dev/null
        podkeep backup path:/root/data
        says 0 'No damage' podkeep check
        says 13 'is no greeting of podkeep' podkeep -r ssh://loud@127.0.0.1:2222/srv/far/loud snapshots
        says 13 nnnnnn podkeep -r ssh://loud@127.0.0.1:2222/srv/far/loud snapshots
        "#,
    );
}

#[test]
fn t_02_a_podkeep_that_cannot_be_started_is_named_with_the_reason() {
    let host = host();
    run(
        &host,
        r#"
        repo=ssh://bk@127.0.0.1:2222/srv/far/absent
        says 13 'there is no podkeep-absent' podkeep -r $repo --remote-path podkeep-absent snapshots
        install -d -o bk -g bk /home/bk/.local /home/bk/.local/bin
        install -o bk /usr/local/bin/podkeep /home/bk/.local/bin/podkeep
        says 13 '--remote-path /home/bk/.local/bin/podkeep' podkeep -r $repo --remote-path keep snapshots
        rm /home/bk/.local/bin/podkeep
        install -m 644 /usr/local/bin/podkeep /srv/far/plain
        says 13 'is not executable' podkeep -r $repo --remote-path /srv/far/plain snapshots
        # Of another machine: the same program with another e_machine (elf(5)).
        cp /usr/local/bin/podkeep-static /srv/far/other
        printf '\xf3\x00' | dd of=/srv/far/other bs=1 seek=18 conv=notrunc status=none
        says 13 'that one is '"$(uname -m)" podkeep -r $repo --remote-path /srv/far/other snapshots
        says 10 'no podkeep repository at ssh://bk@127.0.0.1:2222/srv/far/absent' podkeep -r $repo snapshots
        "#,
    );
}

/// Nothing to install: the first use puts a static podkeep there, later ones use it.
#[test]
fn t_02_a_static_podkeep_is_put_on_a_host_that_has_none() {
    let host = host();
    run(
        &host,
        r#"
        repo=ssh://fresh@127.0.0.1:2222/srv/far/uploaded
        says 10 'no podkeep repository' podkeep -r $repo snapshots
        agents=(/home/fresh/.local/state/podkeep/agent-*)
        [ ${#agents[@]} = 1 ] && cmp ${agents[0]} /usr/local/bin/podkeep-static
        inode=$(stat -c %i ${agents[0]})
        says 10 'no podkeep repository' podkeep -r $repo snapshots
        [ $inode = $(stat -c %i ${agents[0]}) ] || { echo 'sent twice'; exit 1; }
        # Cut short, it never gets its name.
        head -c 1000000 /usr/local/bin/podkeep-static > /srv/far/short
        chmod 755 /srv/far/short; rm ${agents[0]}
        says 13 'cannot put podkeep there' env PODKEEP_AGENT=/srv/far/short podkeep -r $repo snapshots
        ! compgen -G "/home/fresh/.local/state/podkeep/agent-*" || exit 1
        says 1 'without shared libraries' env PODKEEP_AGENT=/bin/bash podkeep -r $repo snapshots
        cp /usr/local/bin/podkeep-static /srv/far/other-machine
        printf '\xb7\x00' | dd of=/srv/far/other-machine bs=1 seek=18 conv=notrunc status=none
        says 13 'a program for aarch64' env PODKEEP_AGENT=/srv/far/other-machine podkeep -r $repo snapshots
        # A home where nothing can be run, and one without room.
        mount -t tmpfs -o noexec,mode=777 none /home/noexec/.local || {
            mkdir /home/noexec/.local; mount -t tmpfs -o noexec,mode=777 none /home/noexec/.local; }
        noexec=ssh://noexec@127.0.0.1:2222/srv/far/x
        says 13 'noexec' podkeep -r $noexec snapshots
        umount /home/noexec/.local; mount -t tmpfs -o size=1m,mode=777 none /home/noexec/.local
        says 13 'No space left' podkeep -r $noexec snapshots
        umount /home/noexec/.local; chmod 755 /home/noexec/.local; chown root /home/noexec/.local
        says 13 'cannot be made' podkeep -r $noexec snapshots
        "#,
    );
}

#[test]
fn t_04_aliases_jump_hosts_and_addresses_are_for_ssh_to_resolve() {
    let host = host();
    run(
        &host,
        r#"
        podkeep -r ssh://behind/srv/far/alias init > /dev/null
        for repo in ssh://far/srv/far/alias ssh://behind/srv/far/alias \
            ssh://bk@[::1]:2222/srv/far/alias ssh://bk@127.0.0.1:2223/srv/far/alias; do
            says 0 '' podkeep -r $repo snapshots
        done
        says 13 'ssh failed' podkeep -r ssh://no-such-alias/srv/far/alias snapshots
        # Without a terminal nobody is asked whether a new host's key is right.
        says 13 'ssh failed' podkeep -r ssh://bk@localhost:2222/srv/far/alias snapshots
        "#,
    );
}

/// The whole work over ssh, as a user meets it.
#[test]
fn t_05_every_command_of_a_repository_works_over_ssh() {
    let host = host();
    run(
        &host,
        r#"
        export PODKEEP_REPO=ssh://bk@127.0.0.1:2222/~/repo
        podkeep init > /dev/null
        says 1 'repository at ssh://bk@127.0.0.1:2222/~/repo already' podkeep init
        [ -f /home/bk/repo/config ]
        podkeep backup path:/root/data
        echo changed > /root/data/changed
        podkeep backup path:/root/data > /dev/null
        says 0 'path' podkeep snapshots
        says 0 'text' podkeep ls latest path:/root/data
        [ "$(podkeep dump latest path:/root/data/text)" = text ]
        says 0 '+' podkeep diff latest~1 latest
        says 0 'file' podkeep find file
        says 0 '' podkeep stats
        podkeep restore latest path:/root/data --to-dir /root/back > /dev/null
        cmp /root/data/file /root/back/file
        says 0 'No damage' podkeep check --read-data
        says 0 '' podkeep key list
        says 12 'passphrase' env PODKEEP_PASSWORD=wrong podkeep snapshots
        says 2 'ssh://bk@h/p' podkeep -r bk@h:/p snapshots
        gone bk
        "#,
    );
}

#[test]
fn t_07_control_sockets_with_long_paths_do_no_harm() {
    let host = host();
    run(
        &host,
        r#"
        long=/tmp/$(printf 'y%.0s' $(seq 100)); mkdir -p $long
        repo=/srv/far/absent
        # The user's own socket has too long a path.
        says 10 'no podkeep repository' podkeep -r ssh://long$repo snapshots
        # With somebody at the terminal connections are shared, by a socket with a short path.
        out=$(XDG_RUNTIME_DIR=$long TMPDIR=$long script -qec "podkeep -r ssh://far$repo snapshots" /dev/null < /dev/null) \
            && { echo 'it should fail'; exit 1; } || code=$?
        [ $code = 10 ] || { echo "code $code: $out"; exit 1; }
        ls -d /tmp/pk-* 2> /dev/null && { echo 'a folder is left'; exit 1; } || true
        "#,
    );
}

#[test]
fn t_08_a_killed_ssh_is_a_lost_link_and_the_next_run_goes_on() {
    let host = host();
    run(
        &host,
        r#"
        repo=/srv/far/lost
        export PODKEEP_REPO=ssh://noisy@127.0.0.1:2223$repo
        podkeep init > /dev/null
        mkdir -p /root/much; for n in 1 2 3; do head -c 50000000 /dev/urandom > /root/much/$n; done
        podkeep --limit-rate 60M backup path:/root/much > /root/lost.log 2>&1 & run=$!
        for try in $(seq 200); do [ -n "$(find $repo/packs -type f | head -1)" ] && break; sleep 0.05; done
        for pid in $(pgrep -x ssh); do
            if tr '\0' ' ' < /proc/$pid/cmdline | grep -q -- '-p 2223 -l noisy'; then kill -9 $pid; fi
        done
        code=0; wait $run || code=$?
        [ $code = 13 ] || { echo "code $code: $(cat /root/lost.log)"; exit 1; }
        grep -q 'noisy@127.0.0.1:2223' /root/lost.log
        gone noisy
        [ -z "$(ls $repo/.tmp)" ] || { echo 'temporary files are left'; exit 1; }
        before=$(du -sb $repo/packs | cut -f1)
        podkeep --json backup path:/root/much > /root/again.json
        added=$(tail -1 /root/again.json | sed 's/.*"bytes_added":\([0-9]*\).*/\1/')
        [ $added -lt $((150000000 - before / 2)) ] || { echo "$added bytes again, $before were there"; exit 1; }
        podkeep restore latest path:/root/much --to-dir /root/much-back > /dev/null
        cmp /root/much/3 /root/much-back/3
        rm -rf /root/much /root/much-back $repo
        "#,
    );
}

#[test]
fn t_10_a_full_disk_there_is_no_space_with_its_path() {
    let host = host();
    run(
        &host,
        r#"
        mkdir /srv/full; mount -t tmpfs -o size=24m,mode=1777 none /srv/full
        export PODKEEP_REPO=ssh://bk@127.0.0.1:2222/srv/full/r
        podkeep init > /dev/null
        mkdir /root/large; head -c 60000000 /dev/urandom > /root/large/file
        says 1 'ssh://bk@127.0.0.1:2222/srv/full/r/packs' podkeep backup path:/root/large
        says 1 'No space left' podkeep backup path:/root/large
        says 0 '' podkeep snapshots
        rm -r /root/large
        "#,
    );
}

#[test]
fn t_11_how_ssh_and_the_far_command_end_is_never_swallowed() {
    let host = host();
    run(
        &host,
        r#"
        mkdir -p /root/fake; cat > /root/fake/ssh <<'END'
#!/bin/sh
# A good greeting, and then the end.
case "$*" in *-G*) exit 0 ;; esac
timeout 1 /usr/bin/ssh "$@"; exit 255
END
        printf '#!/bin/sh\nkill -9 $$\n' > /srv/far/dies
        chmod 755 /root/fake/ssh /srv/far/dies
        repo=ssh://bk@127.0.0.1:2222/srv/far/eleven
        podkeep -r $repo init > /dev/null
        head -c 20000000 /dev/urandom > /root/eleven
        says 13 'ssh failed' env PATH=/root/fake:$PATH podkeep --limit-rate 2M -r $repo backup path:/root/eleven
        says 13 'was killed' podkeep -r $repo --remote-path /srv/far/dies snapshots
        says 13 'Connection refused' podkeep -r ssh://bk@127.0.0.1:1/srv/far/eleven snapshots
        rm /root/eleven
        "#,
    );
}

#[test]
fn t_13_a_caller_s_folder_that_its_user_may_not_enter_is_left() {
    let host = host();
    run(
        &host,
        r#"
        mkdir -p -m 700 /root/private; cd /root/private
        install -d -m 700 -o u -g u /home/u/.ssh
        install -m 600 -o u -g u /root/.ssh/id_ed25519 /root/.ssh/known_hosts /home/u/.ssh/
        export PODKEEP_CACHE_DIR=/home/u/cache
        says 10 'no podkeep repository' runuser -u u -- env HOME=/home/u \
            podkeep -r ssh://bk@127.0.0.1:2222/srv/far/absent snapshots
        "#,
    );
}

#[test]
fn t_14_another_version_there_is_refused_with_both() {
    let host = host();
    run(
        &host,
        r#"
        cat > /srv/far/older <<'END'
#!/bin/sh
printf '\000\377podkeep\377\000W\012\000\000\000\000\000\0050.0.9'
cat > /dev/null
END
        sed 's/W.012.000.000.000.000.000/W\\012\\000\\002\\000\\002\\000/' /srv/far/older > /srv/far/newer
        chmod 755 /srv/far/older /srv/far/newer
        repo=ssh://bk@127.0.0.1:2222/srv/far/absent
        for other in older:0 newer:2; do
            says 13 "this podkeep speaks version 1 of the protocol, the other one version ${other#*:} (podkeep 0.0.9)" \
                podkeep -r $repo --remote-path /srv/far/${other%:*} snapshots
        done
        "#,
    );
}

/// A restricted shell runs one plain command; a forced one lets a host add snapshots, and nothing
/// else, whatever it asks for.
#[test]
fn t_16_restricted_shells_and_forced_commands_are_enough() {
    let host = host();
    run(
        &host,
        r#"
        repo=ssh://restricted@127.0.0.1:2222/srv/far/restricted
        says 13 'restricted' podkeep -r $repo snapshots
        podkeep -r $repo --remote-path podkeep init > /dev/null
        says 0 '' podkeep -r $repo --remote-path podkeep snapshots

        # The owner makes the repository, and a write key for the host.
        export PODKEEP_REPO=/srv/far/forced
        podkeep init > /dev/null
        podkeep key export-write /root/write.key > /dev/null 2>&1 || podkeep key export-write --help
        chown -R forced /srv/far/forced
        export PODKEEP_REPO=ssh://forced@127.0.0.1:2222/srv/far/forced
        podkeep --key-file /root/write.key backup path:/root/data
        podkeep --key-file /root/write.key backup path:/root/data > /dev/null
        says 12 '' podkeep --key-file /root/write.key dump latest path:/root/data/text
        says 1 'this key' podkeep key passwd --new-password-file /etc/hostname
        says 1 'opens /srv/far/forced only' podkeep -r ssh://forced@127.0.0.1:2222/srv/far/noisy snapshots
        [ $(ls /srv/far/forced/snapshots | wc -l) = 4 ]
        [ -z "$(ls /srv/far/forced/leases)" ] || { echo 'a lease is left'; exit 1; }
        says 0 'No damage' podkeep -r /srv/far/forced check --read-data
        "#,
    );
}

/// The static program needs nothing of the system that it runs on.
#[test]
fn the_static_program_runs_in_an_empty_container_and_on_an_old_host() {
    let host = host();
    run(
        &host,
        r#"
        ldd /usr/local/bin/podkeep-static 2>&1 | grep -Eq 'statically linked|not a dynamic executable'
        tar -C /usr/local/bin -cf - podkeep-static | podman import -q - localhost/empty:1 > /dev/null
        podman run --rm --network=none localhost/empty:1 /podkeep-static --version
        "#,
    );
    let old = Host::up(Suite::Bookworm, Driver::Overlay);
    old.put(&static_podkeep(), "/usr/local/bin/podkeep");
    old.script(
        "export PODKEEP_PASSWORD=secret PODKEEP_REPO=/root/r
         podkeep init; podkeep backup path:/etc; podkeep check --read-data",
    );
}
