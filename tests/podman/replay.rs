//! Containers, pods, networks and secrets of real Podman hosts: backed up, destroyed, restored and
//! started. What they are is told by Podman, not by podkeep.

use crate::lab::{Driver, Image, Suite};
use crate::shell::Shell;

pub const WORDS: &str = r#"
export PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
I=localhost/lab:1
data() { podman volume inspect "$1" --format '{{.Mountpoint}}'; }
status() { podman container inspect --format '{{.Name}} {{.State.Status}}' "$@"; }
# Everything of Podman is gone but its images.
destroy() {
    podman pod rm -f -a -t 0 >/dev/null
    # 4.3 does not know an order for it.
    for i in 1 2 3 4; do podman rm -f -a -v -t 0 >/dev/null 2>&1 && break; done
    podman volume rm -a -f >/dev/null
    podman network ls -q | sed '/^podman$/d' | xargs -r podman network rm >/dev/null
    podman secret ls -q | xargs -r podman secret rm >/dev/null
}
# What there is, and what it is.
objects() {
    podman ps -a --no-trunc --format '{{.Names}} {{.ID}} {{.State}}' | sort
    podman pod ls --no-trunc --format '{{.Name}} {{.Id}} {{.Status}}' | sort
    podman network ls --no-trunc --format '{{.Name}} {{.ID}}' | sort
    podman volume ls -q | sort; podman secret ls --format '{{.ID}} {{.Name}} {{.Driver}}' | sort
    find /etc/containers/networks /var/lib/containers/storage/secrets /etc/containers/systemd -type f \
        ! -name '*.lock' -exec sha256sum {} + 2>/dev/null | sort
}
"#;

fn lab(suite: Suite) -> Shell {
    let lab = Shell::up(suite, Driver::Overlay, WORDS);
    lab.host.image(Image::Busybox);
    lab.ok("podkeep init >/dev/null");
    lab
}

/// A stack with everything that has an order: names in reverse of it, states of all kinds.
const STACK: &str = r#"
podman network create --subnet 10.71.1.0/24 front >/dev/null; podman network create back >/dev/null
printf 'x\n' | podman secret create line - >/dev/null
head -c 500000 /dev/urandom > /root/big; podman secret create big /root/big >/dev/null
podman run -d --name z-base --network front:ip=10.71.1.9 -v named:/n -v /anon --restart always \
    -e FOO -e "A=$(printf 'l1\nl2')" --secret line --secret big,type=mount $I /bin/sleep infinity >/dev/null
podman run -d --name y-joins --network container:z-base $I /bin/sleep infinity >/dev/null
podman run -d --name x-needs --requires y-joins --volumes-from z-base --network back $I /bin/sleep infinity >/dev/null
podman run -d --name w-paused --restart on-failure:5 $I /bin/sleep infinity >/dev/null
podman create --name v-created --restart unless-stopped $I >/dev/null
podman run --name u-exited $I /bin/sh -c 'exit 3' >/dev/null || true
podman pod create --name web -p 18090:80 --label tier=1 >/dev/null
podman run -d --pod web --name web-1 $I /bin/sleep infinity >/dev/null
echo named > "$(data named)/file"
A=$(podman container inspect z-base --format '{{range .Mounts}}{{if eq .Destination "/anon"}}{{.Name}}{{end}}{{end}}')
echo anonymous > "$(data "$A")/file"; echo "$A" > /root/anonymous
podman network inspect front --format '{{.ID}}' > /root/network
podman pause w-paused >/dev/null
"#;

/// The same stack comes back, in the states that it was in.
fn stack(suite: Suite) {
    let lab = lab(suite);
    lab.ok(&format!("export FOO=bar\n{STACK}"));
    lab.ok("podkeep backup --all >/dev/null; destroy");
    let said = lab.ok("podkeep restore latest --all --start");
    assert!(said.contains("proof container z-base"), "{said}");
    let states = lab.ok("status z-base y-joins x-needs w-paused v-created u-exited web-1");
    assert_eq!(
        states,
        "z-base running\ny-joins running\nx-needs running\nw-paused paused\nv-created created\n\
         u-exited created\nweb-1 running"
    );
    // The environment is the stored one, though FOO is not set here; secrets have all their bytes.
    lab.ok(r#"
        [ "$(podman exec z-base /bin/sh -c 'echo "$FOO,$A"')" = "$(printf 'bar,l1\nl2')" ]
        [ "$(podman exec z-base /bin/sh -c 'cat /run/secrets/line; echo .')" = "$(printf 'x\n.')" ]
        podman exec z-base /bin/cat /run/secrets/big | cmp - /root/big
        [ "$(podman container inspect z-base --format '{{.HostConfig.RestartPolicy.Name}}')" = always ]
        [ "$(podman container inspect w-paused --format '{{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}')" = on-failure:5 ]
        [ "$(podman network inspect front --format '{{.ID}}')" = "$(cat /root/network)" ]
        podman exec z-base /bin/ip addr | grep -q 10.71.1.9
        podman unpause w-paused >/dev/null"#);
    // Volumes hold their files; the anonymous one is anonymous again, under its name.
    lab.ok(r#"
        A=$(cat /root/anonymous)
        [ "$(podman exec x-needs /bin/cat /n/file /anon/file)" = "$(printf 'named\nanonymous')" ]
        [ "$(podman volume inspect "$A" --format '{{.Anonymous}}')" = true ]
        for name in x-needs y-joins; do podman rm -f -t 0 $name >/dev/null; done
        podman rm -f -v -t 0 z-base >/dev/null
        not podman volume exists "$A"; podman volume exists named"#);
    assert_eq!(
        lab.ok("podman pod inspect web --format '{{.Labels}}'"),
        "map[tier:1]"
    );
}

#[test]
fn c_13_a_stack_comes_back_in_its_states_on_4_3() {
    stack(Suite::Bookworm);
}

#[test]
fn c_13_a_stack_comes_back_in_its_states_on_5_4() {
    stack(Suite::Trixie);
}

#[test]
fn c_13_a_stack_comes_back_in_its_states_on_5_8() {
    stack(Suite::Sid);
}

/// Everything that is in the way is told at once, before anything is changed, and the flags that the
/// lines name resolve it.
#[test]
fn c_20_all_conflicts_are_listed_and_nothing_is_changed() {
    let lab = lab(Suite::Trixie);
    lab.ok(r#"
        mkdir -p /srv/cfg; mknod /dev/thing c 1 3
        podman network create --subnet 10.72.1.0/24 wide >/dev/null
        podman network create --subnet 10.72.9.0/24 apart >/dev/null
        podman network create --subnet 10.72.5.0/24 fixed >/dev/null
        ip link add par0 type bridge
        podman network create -d macvlan -o parent=par0 --subnet 10.72.7.0/24 mac >/dev/null
        printf s | podman secret create token - >/dev/null
        podman create --name same --secret token $I >/dev/null
        podman create --name runs $I >/dev/null
        podman create --name device --device /dev/thing $I >/dev/null
        podman create --name bind -v /srv/cfg:/cfg:ro $I >/dev/null
        podman create --name port -p 18095:80 $I >/dev/null
        podman create --name addr --network fixed:ip=10.72.5.9 $I >/dev/null
        podman pod create --name group >/dev/null
        podman create --name wideuser --network wide:ip=10.72.1.7 $I >/dev/null
        podkeep backup --all >/dev/null; destroy
        rm -r /srv/cfg /dev/thing; ip link del par0
        ip link add host0 type bridge; ip addr add 10.72.1.1/16 dev host0; ip link set host0 up
        podman network create --subnet 10.73.5.0/24 fixed >/dev/null
        printf other | podman secret create token - >/dev/null
        podman create --name same $I >/dev/null; podman run -d --name runs $I >/dev/null
        podman pod create --name group >/dev/null
        python3 -m http.server 18095 >/dev/null 2>&1 & echo $! > /root/server.pid
        for i in $(seq 50); do grep -q ':46AF ' /proc/net/tcp /proc/net/tcp6 && break; sleep 0.1; done"#);
    let before = lab.ok("objects");
    let said = lab.exits("podkeep restore latest --all --dry-run", 1);
    for part in [
        "container same is there: --rename-suffix",
        "container runs is there and runs: --rename-suffix SUFFIX, or --replace with --replace-running",
        "pod group is there",
        "secret token is there: --replace",
        "network fixed is there, with other settings",
        "network wide its subnet 10.72.1.0/24 overlaps 10.72.0.0/16",
        "container device its device /dev/thing is not on this host: --drop-missing",
        "container bind what it mounts, /srv/cfg is not on this host: --drop-missing",
        "network mac its parent, the interface par0, is not on this host",
        "container port needs the port 18095/tcp, which is in use",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    lab.exits("podkeep restore latest --all", 1);
    assert_eq!(lab.ok("objects"), before);
    // With the flags that the lines name.
    lab.ok("kill $(cat /root/server.pid); ip link add par0 type bridge");
    let said = lab.ok(
        "podkeep restore latest --all --replace --replace-running --remap-subnet --drop-missing --start",
    );
    assert!(said.contains("give network wide the subnet"), "{said}");
    lab.ok(r#"
        [ "$(podman secret inspect token --showsecret --format '{{.SecretData}}')" = s ]
        SUBNET=$(podman network inspect wide --format '{{(index .Subnets 0).Subnet}}')
        podman start wideuser >/dev/null
        ADDRESS=$(podman container inspect wideuser --format '{{(index .NetworkSettings.Networks "wide").IPAddress}}')
        [ "$ADDRESS" = "${SUBNET%.0/24}.7" ]"#);
}

/// Its image is the one that it was made from, and its environment what it was made with.
#[test]
fn c_19_a_container_keeps_its_image_and_environment_when_the_tag_moved_on() {
    let lab = lab(Suite::Trixie);
    lab.ok(r#"
        image() { printf "FROM $I\nENV A=$1 B=$1\n" | podman build -q -t localhost/app:1 -f - . >/dev/null; }
        cd /root; image old
        podman run -d --name web -e B=mine localhost/app:1 /bin/sleep infinity >/dev/null
        podman inspect web --format '{{.Image}}' > /root/image; image new
        podman inspect localhost/app:1 --format '{{.Id}}' > /root/moved
        [ "$(cat image)" != "$(cat moved)" ]
        podkeep backup --all >/dev/null"#);
    for clear in ["destroy", "destroy; podman rmi -a -f >/dev/null"] {
        lab.ok(clear);
        lab.ok("podkeep restore latest container:web --start");
        let made = lab.ok(
            "podman inspect web --format '{{.Image}}'; podman exec web env | grep '^[AB]=' | sort",
        );
        assert_eq!(
            made,
            format!("{}\nA=old\nB=mine", lab.ok("cat /root/image")),
            "{clear}"
        );
        let moved = lab.ok("podman inspect localhost/app:1 --format '{{.Id}}' 2>/dev/null || true");
        assert_ne!(moved, lab.ok("cat /root/image"), "{clear}");
    }
}

/// An address that another container has is in the way; what is replaced is not in the way of itself.
#[test]
fn c_07_addresses_of_others_and_what_is_replaced() {
    let lab = lab(Suite::Trixie);
    lab.ok(r#"
        podman network create --subnet 10.72.5.0/24 fixed >/dev/null
        podman run -d --name web -p 18096:80 --network fixed:ip=10.72.5.9 $I /bin/sleep infinity >/dev/null
        podkeep backup --all >/dev/null
        podman rm -f -t 0 web >/dev/null
        podman create --name other --network fixed:ip=10.72.5.9 $I >/dev/null"#);
    let said = lab.exits("podkeep restore latest container:web", 1);
    let line =
        "container web has the address 10.72.5.9 in the network fixed, as other has: --drop-static";
    assert!(said.contains(line), "{said}");
    let address = r#"podman container inspect web --format '{{(index .NetworkSettings.Networks "fixed").IPAddress}}'"#;
    lab.ok("podkeep restore latest container:web --drop-static --start");
    assert_ne!(lab.ok(address), "10.72.5.9");
    // The same port, address and subnet, but another network and another container.
    lab.ok(r#"
        podman rm -f -t 0 web other >/dev/null; podman network rm fixed >/dev/null
        podman network create --subnet 10.72.5.0/24 --label a=b fixed >/dev/null
        podman run -d --name web -p 18096:80 --network fixed:ip=10.72.5.9 $I /bin/sleep infinity >/dev/null"#);
    let said = lab.exits("podkeep restore latest --all", 1);
    for part in [
        "container web is there and runs",
        "network fixed is there, with other settings",
    ] {
        assert!(said.contains(part), "{said}");
    }
    lab.ok("podman create --name bystander --network fixed $I >/dev/null");
    let said = lab.exits(
        "podkeep restore latest --all --replace --replace-running",
        1,
    );
    assert!(
        said.contains("bystander is in it and stays: --rename-suffix"),
        "{said}"
    );
    lab.ok("podman rm bystander");
    lab.ok("podkeep restore latest --all --replace --replace-running --start");
    assert_eq!(lab.ok(address), "10.72.5.9");
    assert_eq!(
        lab.ok("podman network inspect fixed --format '{{.Labels}}'"),
        "map[]"
    );
    assert_eq!(lab.ok("podman port web"), "80/tcp -> 0.0.0.0:18096");
}

/// A container that a unit makes comes with its unit, and a unit with its container, unless that is not wanted.
#[test]
fn c_12_a_container_and_its_unit_bring_each_other() {
    let lab = lab(Suite::Trixie);
    lab.ok(r#"
        mkdir -p /etc/containers/systemd; cd /etc/containers/systemd
        printf '[Volume]\n' > kept.volume
        printf '[Container]\nContainerName=made\nImage=localhost/lab:1\nExec=/bin/sleep infinity\nVolume=kept.volume:/d\n' > made.container
        systemctl daemon-reload; systemctl start made.service
        podman exec made sh -c 'echo kept > /d/file'
        podkeep backup container:made >/dev/null"#);
    for name in ["container:made", "unit:made.container"] {
        lab.ok(r#"
            systemctl stop made.service; rm /etc/containers/systemd/*.*; systemctl daemon-reload; destroy"#);
        if name.starts_with("container") {
            lab.ok(&format!(
                "podkeep restore latest {name} --only --dry-run > /root/said"
            ));
            let said = lab.ok("cat /root/said");
            assert!(!said.contains("kept.volume"), "{said}");
        }
        lab.ok(&format!("podkeep restore latest {name} --start"));
        lab.ok(r#"
            [ "$(systemctl is-active made.service)" = active ]
            [ "$(podman exec made cat /d/file)" = kept ]
            [ "$(podman container inspect made --format '{{index .Config.Labels "PODMAN_SYSTEMD_UNIT"}}')" = made.service ]"#);
    }
}

/// What docs/guides/drivers.md says: the same host with another driver, networks and units as they lie.
#[test]
fn a_host_changes_its_storage_driver() {
    let lab = lab(Suite::Trixie);
    lab.ok(r#"
        printf tok | podman secret create t1 - >/dev/null; podman network create --subnet 10.76.1.0/24 n1 >/dev/null
        podman run -d --name web --network n1:ip=10.76.1.7 --secret t1 -v data:/d -p 18098:80 localhost/lab:1 /bin/sleep infinity >/dev/null
        podman exec web sh -c 'echo kept > /d/file; chown 33:44 /d/file; echo own > /etc/own'
        podman create --name rests localhost/lab:1 >/dev/null
        podman run -d --pod new:shop --name in-pod localhost/lab:1 /bin/sleep infinity >/dev/null
        mkdir -p /etc/containers/systemd
        printf '[Container]\nContainerName=made\nImage=localhost/lab:1\nExec=/bin/sleep infinity\nVolume=more:/d\n' > /etc/containers/systemd/made.container
        systemctl daemon-reload; systemctl start made; podman exec made sh -c 'echo more > /d/file'"#);
    let facts = r#"podman ps -a --format '{{.Names}} {{.State}}' | grep -v infra | sort; podman images --format '{{.ID}} {{.Digest}}' localhost/lab
        podman exec web sh -c 'stat -c %u:%g /d/file; cat /d/file /etc/own /run/secrets/t1'
        podman exec made cat /d/file; podman network inspect n1 | jq -c '.[0] | [.subnets, .id]'; podman port web
        podman inspect -f '{{(index .NetworkSettings.Networks "n1").IPAddress}}' web"#;
    let before = lab.ok(facts);
    lab.ok(r#"
        podkeep backup --all --consistency stop > /dev/null
        systemctl stop made; podman pod stop -a > /dev/null; podman stop -t 0 -a > /dev/null; podman unmount -a > /dev/null
        mv /var/lib/containers/storage /var/lib/containers/storage.before
        sed -i 's/^driver = .*/driver = "vfs"/' /etc/containers/storage.conf
        podkeep restore latest --all --start --merge
        [ "$(podman info --format '{{.Store.GraphDriverName}}')" = vfs ]"#);
    assert_eq!(lab.ok(facts), before);
}

/// A container brings what it needs, and one that is there already stays when a suffix says so.
#[test]
fn c_17_one_container_with_what_it_needs_beside_the_one_that_is_there() {
    let lab = lab(Suite::Sid);
    lab.ok(r#"
        printf tok | podman secret create t1 - >/dev/null; podman network create n1 >/dev/null
        podman create --name db --network n1 -v dbdata:/d --secret t1 --hostname keep $I >/dev/null
        podman create --name other -v unrelated:/u $I >/dev/null
        # Made by the API: nobody's command is stored.
        podman system service --time=5 unix:///run/t.sock & sleep 1
        python3 - <<'PYTHON'
import json, socket
s = socket.socket(socket.AF_UNIX); s.connect("/run/t.sock")
b = json.dumps({"name": "api", "image": "localhost/lab:1", "command": ["/bin/sleep", "5 6"]}).encode()
s.sendall(b"POST /v5.0.0/libpod/containers/create HTTP/1.0\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % len(b) + b)
assert b" 201 " in s.recv(65536)
PYTHON
        podkeep backup --all >/dev/null; destroy
        podkeep restore latest container:db
        podman container exists db; podman network exists n1; podman volume exists dbdata
        not podman container exists other; not podman volume exists unrelated"#);
    lab.says(
        "podkeep restore latest container:api container:db --merge --rename-suffix -2",
        1,
        &["secret t1 is there: --replace"],
    );
    lab.ok(r#"
        podman secret rm t1 >/dev/null
        podkeep restore latest container:api container:db --merge --rename-suffix -2
        podman container exists db; podman container exists db-2
        [ "$(podman container inspect api --format '{{json .Config.Cmd}}')" = '["/bin/sleep","5 6"]' ]
        [ "$(podman container inspect db-2 --format '{{.Config.Hostname}}')" = keep ]"#);
}

/// An image of another architecture, health checks that end well and badly, ports that were drawn and an
/// address that was asked for: what starting and the flags make of them.
#[test]
fn i_07_another_architecture_is_made_and_started_only_when_forced() {
    let lab = lab(Suite::Trixie);
    lab.ok(r#"
        C=$(podman create $I)
        podman export $C | podman import -q --arch arm64 --change 'CMD ["/bin/sleep","infinity"]' - localhost/arm:1 >/dev/null
        podman rm $C >/dev/null
        podman run -d --name arm localhost/arm:1 >/dev/null 2>&1
        podman network create later >/dev/null
        podman run -d --name well --network later --health-cmd 'wget -q -O /dev/null http://zlate:8080/passwd' \
            --health-interval 1s $I >/dev/null
        podman run -d --name zlate --network later $I sh -c 'exec httpd -f -p 8080 -h /etc' >/dev/null
        podman run -d --name ill --health-cmd /bin/false --health-interval 1s --health-retries 1 $I >/dev/null
        podman run -d --name never --health-cmd NONE --restart always $I >/dev/null
        podman create --name drawn -p 80 -p 18097:81 $I >/dev/null
        podman network create --subnet 10.75.1.0/24 still >/dev/null
        podman create --name still --network still:ip=10.75.1.77 $I >/dev/null
        podman inspect drawn --format '{{json .HostConfig.PortBindings}}' > /root/ports
        podkeep backup --all >/dev/null; destroy; podman rmi localhost/arm:1 >/dev/null"#);
    let foreign = "container:arm: its image is for arm64, this host is amd64";
    lab.says(
        "podkeep restore latest --all --dry-run",
        3,
        &[foreign, "--start-foreign"],
    );
    assert_eq!(lab.ok("podman ps -aq"), "");
    // One is healthy when another one runs, which starts after it.
    let started = lab.run("podkeep restore latest --all --start 2>&1");
    let told = started.text();
    assert_eq!(started.code, 3, "{told}");
    for part in [foreign, "container:ill: it runs and is unhealthy"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(!told.contains("container:well: it"), "{told}");
    assert_eq!(
        lab.ok("status arm well ill never still"),
        "arm created\nwell running\nill running\nnever running\nstill created"
    );
    lab.ok(r#"
        [ "$(podman inspect well --format '{{.State.Health.Status}}')" = healthy ]
        [ "$(podman inspect never --format '{{.HostConfig.RestartPolicy.Name}}')" = always ]
        podman inspect drawn --format '{{json .HostConfig.PortBindings}}' | grep -q 18097
        podman start still >/dev/null; podman exec still /bin/ip addr | grep -q 10.75.1.77
        destroy
        podkeep restore latest container:arm container:drawn container:still --start --start-foreign --pin-ports \
            --drop-static || [ $? = 3 ]
        [ "$(status arm)" = "arm running" ]
        podman inspect drawn --format '{{json .HostConfig.PortBindings}}' | cmp - /root/ports
        podman start still >/dev/null
        not grep -q 10.75.1.77 <<< "$(podman exec still /bin/ip addr)""#);
}

/// Mounts have the options that they had, what `U` would re-own is not re-owned by the restore, and an
/// anonymous volume goes with its container, a named one does not.
#[test]
fn v_16_anonymous_volumes_are_anonymous_again_and_v_10_options_stay() {
    let lab = lab(Suite::Sid);
    lab.ok(r#"
        podman create --name c --user 1000 -v own:/own:U,z,noexec -v private:/private:Z,ro -v named:/n -v /data \
            --mount type=volume,source=named,destination=/sub,subpath=/part,ro $I >/dev/null
        mkdir "$(data named)/part"
        A=$(podman inspect c --format '{{range .Mounts}}{{if eq .Destination "/data"}}{{.Name}}{{end}}{{end}}')
        for volume in own named "$A"; do
            echo "$volume" > "$(data "$volume")/file"; chown 4711:4712 "$(data "$volume")" "$(data "$volume")/file"
        done
        podman inspect c --format '{{json .Mounts}}' | jq -S 'sort_by(.Destination)' > /root/mounts
        podkeep backup --all >/dev/null; destroy; podkeep restore latest --all
        podman inspect c --format '{{json .Mounts}}' | jq -S 'sort_by(.Destination)' | diff - /root/mounts
        for volume in own named "$A"; do
            [ "$(stat -c %u:%g "$(data "$volume")" "$(data "$volume")/file" | uniq)" = 4711:4712 ]
        done
        [ "$(podman volume inspect "$A" --format '{{.Anonymous}}')" = true ]
        [ "$(podman volume inspect named --format '{{.Anonymous}}')" = false ]
        # Podman does what `U` says at the start, as it did on the source.
        podman start c >/dev/null; [ "$(stat -c %u "$(data own)/file")" = 1000 ]
        [ "$(podman exec c /bin/cat /data/file)" = "$A" ]; podman exec c /bin/cat /own/file >/dev/null
        podman rm -f -t 0 -v c >/dev/null
        not podman volume exists "$A"; podman volume exists named; podman volume exists own"#);
}

/// An image with an entrypoint, a command and a health check, and containers that leave or change them.
const IMAGE_OF_ALL: &str = r#"
printf 'FROM %s\nENTRYPOINT ["/bin/sh", "-c"]\nCMD ["sleep 99"]\nHEALTHCHECK --interval=33s CMD /bin/true\n' $I |
    podman build -q --format docker -t localhost/all:1 -f - /root > /dev/null
# What the OCI runtime was given is told by itself.
told() {
    for name in $(podman ps -a --format '{{.Names}}' | sort); do
        podman init "$name" > /dev/null
        podman container inspect "$name" > /root/inspected
        python3 -c '
import json
[one] = json.load(open("/root/inspected"))
config = one["Config"]
print(one["Name"], one["Path"], one["Args"], config["Entrypoint"], config["Cmd"])
print(json.load(open(one["OCIConfigPath"]))["process"]["args"])
print(*(config.get(key) for key in ("Healthcheck", "StartupHealthCheck", "HealthcheckOnFailureAction")))'
    done
}
comes_back() {
    told > /root/before; podkeep backup --all > /dev/null; destroy
    podkeep restore latest --all > /dev/null; told > /root/after
    diff /root/before /root/after; cat /root/after
}
"#;

#[test]
fn c_04_commands_and_entrypoints_are_neither_doubled_nor_lost() {
    for suite in [Suite::Bookworm, Suite::Trixie] {
        let told = lab(suite).ok(&format!(
            r#"{IMAGE_OF_ALL}
            A=localhost/all:1
            podman create --name both $A > /dev/null; podman create --name command $A 'sleep 7' > /dev/null
            podman create --name entrypoint --entrypoint /bin/sleep $A 8 > /dev/null
            podman create --name list --entrypoint '["/bin/sh", "-c", "sleep 9"]' $A > /dev/null
            podman create --name none --entrypoint '' $A /bin/true > /dev/null
            podman create --name plain $I /bin/sh -c 'exit "$0"' 3 > /dev/null
            comes_back"#
        ));
        for part in [
            "['/bin/sh', '-c', 'sleep 99']",
            "['/bin/sh', '-c', 'sleep 7']",
            "['/bin/sleep', '8']",
            "['/bin/true']",
            "'exit \"$0\"', '3']",
        ] {
            assert!(told.contains(part), "{suite}: {part}: {told}");
        }
    }
}

#[test]
fn c_05_health_checks_are_the_image_s_the_container_s_or_none() {
    for (suite, startup) in [
        (Suite::Bookworm, ""),
        (
            Suite::Trixie,
            "--health-startup-cmd /bin/true --health-startup-interval 8s",
        ),
    ] {
        let told = lab(suite).ok(&format!(
            r#"{IMAGE_OF_ALL}
            A=localhost/all:1
            podman create --name image $A > /dev/null; podman create --name none --no-healthcheck $A > /dev/null
            podman create --name shell --health-cmd 'test -e "/a b"' --health-retries 7 $A > /dev/null
            podman create --name list --health-cmd '["CMD", "/bin/test", "-e", "/a b"]' --health-timeout 11s $I /bin/true > /dev/null
            podman create --name startup --health-cmd /bin/true --health-on-failure kill {startup} $I /bin/true > /dev/null
            comes_back"#
        ));
        for part in ["33000000000", "'NONE'", "'CMD-SHELL'", "/bin/test", "kill"] {
            assert!(told.contains(part), "{suite}: {part}: {told}");
        }
        assert_eq!(told.contains("8000000000"), !startup.is_empty(), "{told}");
    }
}
