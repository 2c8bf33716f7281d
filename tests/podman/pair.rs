//! Two hosts with a wire between them, and a service that one of them runs.

use crate::lab::{Driver, Host, Suite, link};

/// A container's own process, by which it is seen from outside: no Podman is asked.
const WORKER: &str = "pgrep -f '^/bin/sh -c .*worker-of-the-test'";

/// Root of the first, which has podkeep, reaches root of either; the second has Podman alone.
pub fn pair(near: (Suite, Driver), far: (Suite, Driver)) -> (Host, Host) {
    acquainted(Host::up(near.0, near.1), Host::up(far.0, far.1))
}

/// Makes a pair of two hosts.
pub fn acquainted(a: Host, b: Host) -> (Host, Host) {
    let key = a.script(
        "mkdir -m 700 -p /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
         cat /root/.ssh/id_ed25519.pub",
    );
    for host in [&a, &b] {
        host.script(&format!(
            "mkdir -m 700 -p /root/.ssh; echo '{key}' > /root/.ssh/authorized_keys
             ssh-keygen -A > /dev/null"
        ));
    }
    join(&a, &b);
    a.script(
        "for try in $(seq 50); do
             ssh-keyscan 10.99.0.1 10.99.0.2 2> /dev/null > /root/.ssh/known_hosts
             grep -q 0.1 /root/.ssh/known_hosts && grep -q 0.2 /root/.ssh/known_hosts && exit
             sleep 0.1
         done; exit 1",
    );
    a.install_podkeep();
    a.put(
        &super::remote::static_podkeep(),
        "/usr/local/bin/podkeep-static",
    );
    (a, b)
}

/// Lays the wire, and again after one of them booted; sshd listens on both.
pub fn join(a: &Host, b: &Host) {
    link(a, b);
    for host in [a, b] {
        host.script("mkdir -p /run/sshd; pgrep -x sshd > /dev/null || /usr/sbin/sshd");
    }
}

pub fn runs(host: &Host) -> bool {
    host.run(&["bash", "-c", WORKER]).code == 0
}

/// Everything in the volume `data` but what is appended, with its attributes.
pub fn content(host: &Host) -> String {
    host.script(
        "cd $(podman volume inspect -f '{{.Mountpoint}}' data)
         find . ! -name log -printf '%P %u %g %m %T@\\n' | sort; sha256sum big sub/a",
    )
}

pub fn log_lines(host: &Host) -> Vec<String> {
    let text = host.script("cat $(podman volume inspect -f '{{.Mountpoint}}' data)/log");
    text.lines().map(str::to_owned).collect()
}
