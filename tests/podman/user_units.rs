//! Units and configuration of a user's own: they are kept with what they point to, come back to the home
//! that there is, and the user's systemd runs them.

use crate::lab::{Driver, Image, Suite};
use crate::shell::{Shell, same_lines};

const WORDS: &str = concat!(
    include_str!("../lab/users.sh"),
    include_str!("../lab/until.sh"),
    r#"
export PODKEEP_REPO=/var/tmp/repository PODKEEP_PASSWORD=secret
load() { as "$1" podman load -q -i /tmp/lab.tar > /dev/null; }
systemd() { as "$1" systemctl --user "${@:2}"; }
# A Quadlet unit with a volume, a drop-in, a file of variables below the home, a link to where its text lies, and one
# file that is root's; a unit of systemd's own that starts a container which is there; configuration; a secret place.
units() {
    local home=/home/$1
    as "$1" bash -euc '
        cd; mkdir -p .config/containers/systemd/web.container.d .config/systemd/user texts app
        printf "[Volume]\nVolumeName=data\n" > .config/containers/systemd/data.volume
        cat > texts/web.container <<"END"
[Container]
Image=localhost/lab:1
ContainerName=web
Network=none
Volume=data.volume:/d
EnvironmentFile=%h/app/web.env
EnvironmentFile=/etc/default/app
Exec=/bin/sh -c "trap : TERM; echo $$WORD $$MORE $$ROOT >> /d/log; sleep infinity & wait; true"
[Install]
WantedBy=default.target
END
        ln -s ../../../texts/web.container .config/containers/systemd/web.container
        echo WORD=kept > app/web.env; chmod 600 app/web.env
        printf "[Container]\nEnvironment=MORE=dropped-in\n" > .config/containers/systemd/web.container.d/1.conf
        printf "[containers]\nlog_driver = \"k8s-file\"\n" > .config/containers/containers.conf
        cat > .config/systemd/user/old.service <<"END"
[Service]
Type=forking
PIDFile=%t/old.pid
ExecStart=podman start old
ExecStop=podman stop -t 0 old
[Install]
WantedBy=default.target
END
        podman create --name old --network=none --conmon-pidfile "$XDG_RUNTIME_DIR/old.pid" --stop-timeout 0 \
            -v shared:/s localhost/lab:1 /bin/sleep infinity > /dev/null
        systemctl --user daemon-reload; systemctl --user -q enable old; systemctl --user start old web'
}
# Units that Quadlet makes for users wait 90 s for the network, which is no matter here.
online() { systemctl start network-online.target; }
root_s() { mkdir -p /etc/default; echo ROOT=root > /etc/default/app; }
# All that there is of it, and that it runs.
facts() {
    local home=/home/$1
    (cd "$home"; find .config app texts ! -type d -printf '%p %y %m %u:%g %l\n' | sed "s/$1:$1/USER/; s,/home/$1,HOME," | sort
     find .config app texts -type f -exec sha256sum {} + | sort)
    systemd "$1" is-active web; systemd "$1" is-enabled old web || true
    as "$1" podman exec web tail -n 1 /d/log
    as "$1" podman ps --format '{{.Names}}' | sort
}
nothing() {
    systemd "$1" stop web old; systemd "$1" disable old
    as "$1" podman rm -fa > /dev/null; as "$1" podman volume prune -f > /dev/null
    rm -rf /home/$1/.config /home/$1/app /home/$1/texts; systemd "$1" daemon-reload
    as "$1" podman volume ls -q
}
"#
);

fn lab() -> Shell {
    let lab = Shell::up(Suite::Trixie, Driver::Overlay, WORDS);
    lab.host.image(Image::Busybox);
    lab.ok("online; users; root_s; podkeep init > /dev/null
         podman save -q localhost/lab:1 -o /tmp/lab.tar; chmod 644 /tmp/lab.tar; load u; units u");
    lab
}

#[test]
fn units_and_configuration_of_a_user_come_back() {
    let lab = lab();
    let name = &lab.name;
    let before = lab.ok("facts u");
    for part in [
        "web.container l 777 USER ../../../texts/web.container",
        "app/web.env f 600 USER",
        "active\nenabled\ngenerated\nkept dropped-in root\nold\nweb",
    ] {
        assert!(before.contains(part), "{part}: {before}");
    }
    // By root, and by the user, from inside the user namespace.
    let foreign =
        "/etc/default/app (environment) is named and not there, or not a file of this user's";
    lab.says("podkeep backup --all --host local:u", 0, &[foreign]);
    lab.ok("as u podkeep init --repo /home/u/own > /dev/null");
    lab.says(
        "as u podkeep backup --all --repo /home/u/own",
        0,
        &[foreign],
    );
    for run in [
        format!("podkeep ls --json latest@u@{name}"),
        "as u podkeep ls --json latest --repo /home/u/own".into(),
    ] {
        let listed = lab.ok(&run);
        for item in [
            "unit:data.volume",
            "unit:web.container",
            "unit:old.service",
            "config:containers",
        ] {
            assert!(listed.contains(item), "{item}: {listed}");
        }
        assert!(!listed.contains("config:users"), "{listed}");
        let files = lab.ok(&format!("{run} unit:web.container"));
        for file in [
            "/home/u/app/web.env",
            "/home/u/texts/web.container",
            "web.container.d/1.conf",
        ] {
            assert!(files.contains(file), "{file}: {files}");
        }
        let missing = r#"{"missing":true,"path":"/etc/default/app","#;
        assert!(files.contains(missing), "{files}");
    }

    // Onto nothing: by root for the user, and by the user.
    for restore in [
        "podkeep restore latest@u@NAME --host local:u --start".replace("NAME", name),
        "as u podkeep restore latest --repo /home/u/own --start".to_owned(),
    ] {
        assert_eq!(lab.ok("nothing u"), "");
        lab.ok("load u");
        lab.ok(&format!("{restore} config:containers"));
        lab.ok(&format!("{restore} --all"));
        assert_eq!(lab.ok("facts u"), before, "{restore}");
    }

    // To a user with another home and other ids, who has no session.
    let restore = format!("podkeep restore latest@u@{name} --host local:bob");
    lab.ok(&format!("{restore} config:containers"));
    lab.says(&format!("{restore} --all --start"), 1, &["--enable-linger"]);
    lab.says(
        &format!("{restore} --all --start --enable-linger"),
        0,
        &["what lay below /home/u goes below /home/bob"],
    );
    assert_eq!(lab.ok("facts bob"), before, "bob");
    assert_eq!(
        lab.ok("find /home/bob/.config /home/bob/app -not -user bob"),
        ""
    );
    // After a boot, too.
    lab.host.crash();
    lab.host.boot();
    lab.ok(
        "online; runs() { [ \"$(systemd bob is-active web)\" = active ]; }; until_true 60 runs; facts bob",
    );

    // Neither is a unit of a user one of the system, nor the other way round.
    lab.says(
        &format!("podkeep restore latest@u@{name} unit:web.container"),
        1,
        &["unit web.container is one of a user"],
    );
    lab.says(
        &format!("podkeep restore latest@u@{name} config:containers"),
        1,
        &["configuration of a user"],
    );
}

/// What a user points root to that the user may not read is not read.
#[test]
fn root_reads_for_a_user_only_what_is_the_user_s() {
    let lab = lab();
    let name = &lab.name;
    lab.ok(
        "echo hidden-from-u > /root/secret.env; chmod 600 /root/secret.env
         mkdir -m 700 /srv/closed; echo hidden-from-u > /srv/closed/env; chown u /srv/closed/env
         as u bash -euc 'cd; cd .config/containers/systemd
             printf \"[Container]\\nImage=x\\nEnvironmentFile=/root/secret.env\\nEnvironmentFile=/srv/closed/env\\n\" > a.container
             ln -s /root/secret.env ~/app/link; printf \"[Container]\\nImage=x\\nEnvironmentFile=%%h/app/link\\n\" > b.container
             ln -s /etc/shadow c.container; ln -s /root ~/folder; printf \"[Container]\\nEnvironmentFile=%%h/folder/secret.env\\n\" > d.container'",
    );
    lab.run("podkeep backup 'unit:*' --host local:u");
    lab.ok(&format!(
        "podkeep restore latest@u@{name} --all --to-dir /var/tmp/out; [ -e /var/tmp/out/unit/a.container ]"
    ));
    assert_eq!(
        lab.ok("grep -rlE 'hidden-from-u|root:' /var/tmp/out/unit || true"),
        ""
    );

    // Nor does it write where the user may not.
    lab.ok("nothing u; rm -r /home/u/folder /home/u/.config; as u ln -s /root /home/u/.config");
    let outcome = lab.run(&format!(
        "podkeep restore latest@u@{name} unit:a.container --host local:u"
    ));
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert_eq!(
        lab.ok("find /root -name '*.container' -o -name containers"),
        ""
    );
}

/// A container that a unit of the user's starts is stopped by way of the unit, and so is it started.
#[test]
fn units_of_a_user_are_stopped_and_started_for_a_backup() {
    let lab = lab();
    let started = "as u podman inspect --format '{{.Name}} {{.State.StartedAt}}' web old";
    let before = lab.ok(started);
    lab.ok("as u podkeep init --repo /home/u/own > /dev/null");
    let backup = "podkeep backup volume:shared volume:data --consistency stop";
    for command in [
        format!("as u {backup} --repo /home/u/own"),
        format!("{backup} --host local:u"),
    ] {
        lab.says(&command, 0, &["container web: it is paused, not stopped"]);
        let after = lab.ok(started);
        let same = same_lines(&before, &after);
        assert_eq!(same, [true, false], "{before} {after}");
        lab.ok("[ \"$(systemd u is-active web old)\" = $'active\\nactive' ]");
    }
    // Killed while the unit is stopped: the deadline starts it.
    for command in [
        format!("as u {backup} --repo /home/u/own"),
        format!("{backup} --host local:u"),
    ] {
        lab.ok(&format!(
            r#"dd if=/dev/urandom of=$(as u podman volume inspect shared --format '{{{{.Mountpoint}}}}')/big bs=1M count=200 status=none
            {command} --max-freeze 6s & 
            rests() {{ [ "$(systemd u is-active old)" != active ]; }}; until_true 30 rests
            pkill -KILL -x podkeep; wait || true
            runs() {{ [ "$(systemd u is-active old)" = active ]; }}; until_true 30 runs"#
        ));
    }
}

/// What a unit of a user runs moves with its unit, and the fence is a mask in the user's folder.
#[test]
fn a_container_of_a_user_s_unit_moves_with_its_unit() {
    let lab = lab();
    let before = lab.ok("facts u");
    let command = "podkeep migrate container:web --from local:u --to local:bob --enable-linger";
    lab.ok(command);
    let state = "systemd u is-enabled web || true; systemd u is-active web || true";
    assert_eq!(lab.ok(state), "masked\ninactive");
    assert_eq!(
        lab.ok("systemd bob is-active web; as bob podman exec web tail -n 1 /d/log"),
        "active\nkept dropped-in root"
    );
    assert_eq!(
        lab.ok("wc -l < /home/bob/.local/share/containers/storage/volumes/data/_data/log"),
        "2"
    );
    assert_eq!(
        lab.ok("find /home/bob/.config /home/bob/app -not -user bob"),
        ""
    );
    lab.ok(&format!("{command} --rollback --discard-target-writes"));
    assert_eq!(lab.ok("facts u"), before);
    assert_eq!(
        lab.ok("find /home/bob/.config /home/bob/app -type f; as bob podman ps -aq; as bob podman volume ls -q"),
        ""
    );
    lab.ok(&format!("{command}; {command} --finish"));
    assert_eq!(
        lab.ok("systemd bob is-active web; as u podman ps --format '{{.Names}}'"),
        "active\nold"
    );
    // One that is started by a unit which does not make it is not moved.
    lab.says(
        "podkeep migrate container:old --from local:u --to local:bob",
        1,
        &[
            "started by the unit old.service",
            "systemctl --user disable --now",
        ],
    );
}
