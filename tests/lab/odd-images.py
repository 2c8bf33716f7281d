#!/usr/bin/env python3
"""Runs inside a host: puts images into its Podman that are odd in one way each, as registries and
build tools make them. Prints the name or ID of each, one a line.

    odd-images.py            all of them that every driver takes
    odd-images.py plain      only those that every version of Podman takes
    odd-images.py across     all of them, and one that the driver overlay does not take
    odd-images.py changed    those that `break` makes into ones that nobody can save as they are
    odd-images.py break      takes away what that needs; prints nothing. Nothing of Podman's may run
                             afterwards that writes its store.

Every image has the host's static busybox below, so that it runs."""
import base64, gzip, hashlib, io, json, os, subprocess, sys, tarfile, tempfile

WORK = tempfile.mkdtemp(dir="/var/tmp")
SECONDS = 1700000000


def run(*argv):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


STORE = json.loads(run("podman", "info", "--format", "json"))["store"]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


class Layer:
    """A tar, member by member."""

    def __init__(self, fmt=tarfile.PAX_FORMAT):
        self.file = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.file, mode="w", format=fmt, encoding="utf-8")

    def add(self, name, data=b"", kind=tarfile.REGTYPE, mode=0o644, link="", pax=None, mtime=SECONDS):
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.mtime = kind, mode, link, mtime
        info.size = len(data)
        info.pax_headers = pax or {}
        self.tar.addfile(info, io.BytesIO(data))
        return self

    def folder(self, name, mode=0o755, **more):
        return self.add(name, kind=tarfile.DIRTYPE, mode=mode, **more)

    def link(self, name, target, mode=0o644):
        """The mode is set on the file that both names have."""
        return self.add(name, kind=tarfile.LNKTYPE, link=target, mode=mode)

    def symlink(self, name, target):
        return self.add(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)

    def bytes(self, end=None):
        """`end`: so many blocks of zeros behind the last member, instead of what is usual."""
        at = self.tar.offset
        self.tar.close()
        data = self.file.getvalue()
        return data if end is None else data[:at] + bytes(512 * end)


def base():
    layer = Layer()
    for name in ["bin", "etc", "proc", "sys", "dev", "run"]:
        layer.folder(name)
    layer.folder("tmp", mode=0o1777)
    with open("/bin/busybox", "rb") as file:
        layer.add("bin/busybox", file.read(), mode=0o755)
    for applet in ["sh", "cat", "ls", "stat", "true", "sleep", "find"]:
        layer.link("bin/" + applet, "bin/busybox", mode=0o755)
    layer.add("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
    return layer.bytes()


BASE = base()
OCI = "application/vnd.oci.image.%s.v1"
DOCKER = "application/vnd.docker."


def packed_by_zstd(data):
    """With a frame behind it that decoders skip, as zstd:chunked has its table of contents in one."""
    packed = subprocess.run(["zstd", "-q", "-c"], input=data, check=True, stdout=subprocess.PIPE).stdout
    skipped = b"a table of contents"
    return packed + (0x184D2A50).to_bytes(4, "little") + len(skipped).to_bytes(4, "little") + skipped


class Layout:
    """An OCI layout with one image or several."""

    def __init__(self):
        self.root = tempfile.mkdtemp(dir=WORK)
        os.makedirs(self.root + "/blobs/sha256")
        with open(self.root + "/oci-layout", "w") as file:
            file.write('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data, media):
        with open(f"{self.root}/blobs/sha256/{sha256(data)}", "wb") as file:
            file.write(data)
        return {"mediaType": media, "digest": "sha256:" + sha256(data), "size": len(data)}

    def image(self, layers, docker=False, annotations=None, label="", arch="amd64", history=None, zstd=False):
        config = {
            "architecture": arch, "os": "linux", "created": "2024-05-06T07:08:09Z",
            "config": {"Cmd": ["/bin/sh"], "Labels": {"odd": label}},
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha256(l) for l in layers]},
            "history": history or [{"created_by": f"layer {n}"} for n in range(len(layers))],
        }
        if docker:
            config["config"]["Healthcheck"] = {"Test": ["CMD", "/bin/true"]}
        config = json.dumps(config, indent=1).encode()
        zipped = [packed_by_zstd(l) if zstd else gzip.compress(l, mtime=0) for l in layers]
        kind = OCI % "layer" + ".tar+zstd" if zstd else DOCKER + "image.rootfs.diff.tar.gzip" if docker else OCI % "layer" + ".tar+gzip"
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER + "distribution.manifest.v2+json" if docker else OCI % "manifest" + "+json",
            "config": self.blob(config, DOCKER + "container.image.v1+json" if docker else OCI % "config" + "+json"),
            "layers": [self.blob(z, kind) for z in zipped],
        }
        if annotations:
            manifest["annotations"] = annotations
        # Written as no serialiser of Podman's would, so that a manifest that was made anew shows.
        manifest = json.dumps(manifest, indent=3).encode()
        return self.blob(manifest, json.loads(manifest)["mediaType"])

    def put(self, descriptor, name):
        """Into the host's store, under this name."""
        with open(self.root + "/index.json", "w") as file:
            json.dump({"schemaVersion": 2, "manifests": [descriptor]}, file)
        return copy("oci:" + self.root, name)

    def put_signed(self, descriptor, name, signatures):
        """The same, by way of a `dir:` folder, which has a place for signatures."""
        folder = tempfile.mkdtemp(dir=WORK)
        for digest in os.listdir(self.root + "/blobs/sha256"):
            os.link(f"{self.root}/blobs/sha256/{digest}", f"{folder}/{digest}")
        os.rename(f"{folder}/{descriptor['digest'].removeprefix('sha256:')}", folder + "/manifest.json")
        with open(folder + "/version", "w") as file:
            file.write("Directory Transport Version: 1.1\n")
        for number, signature in enumerate(signatures, 1):
            with open(f"{folder}/signature-{number}", "wb") as file:
                file.write(signature)
        return copy("dir:" + folder, name)


def copy(source, name):
    # The store is named, since not every skopeo finds the one that Podman uses.
    store = f"[{STORE['graphDriverName']}@{STORE['graphRoot']}+{STORE['runRoot']}]"
    run("skopeo", "--insecure-policy", "copy", "-q", source, "containers-storage:" + store + name)
    return name


def simple(name, layers, **more):
    layout = Layout()
    return layout.put(layout.image([BASE] + layers, label=name, **more), f"localhost/odd/{name}:1")


def whiteouts():
    lower = Layer().folder("d").add("d/a", b"a").add("d/b", b"b").folder("d/s").add("d/s/x", b"x")
    lower.folder("e").add("e/one", b"1").add("e/two", b"2").add("f", b"file")
    # The marker stands behind what it must not hide.
    upper = Layer().folder("d").add("d/new", b"new" * 1000).add("d/.wh..wh..opq")
    upper.folder("e").add("e/.wh.one").add("e/.wh.never-there").folder("f").add("f/inside", b"now a folder")
    top = Layer().add(".wh.f").add("f", b"a file again")
    return [lower.bytes(), upper.bytes(), top.bytes()]


def hardlinks():
    lower = Layer().add("t1", b"old" * 500).link("t2", "t1").link("t3", "t1").add("plain", b"plain" * 100)
    over = Layer().add("t1", b"new" * 600)
    gone = Layer().add(".wh.t2")
    # The link takes the place of a file of a lower layer.
    linked = Layer().add("target", b"target" * 100).link("plain", "target")
    return [l.bytes() for l in [lower, over, gone, linked]]


def links():
    """A link takes the place of what a lower layer has: a folder with a file, a symlink to it, and one to
    nowhere. Another lies in folders that no layer names."""
    lower = Layer().folder("d").add("d/in", b"in" * 100).symlink("to-d", "d").symlink("nowhere", "/not/there")
    upper = Layer().add("target", b"target" * 100)
    for name in ["d", "to-d", "nowhere", "made/for/it"]:
        upper.link(name, "target")
    return [lower.bytes(), upper.bytes()]


def across():
    """A link to a file that only a lower layer has: drivers that unpack each layer by itself
    cannot take it."""
    return [Layer().add("far", b"far" * 500).bytes(), Layer().link("near", "far").bytes()]


def attributes():
    capability = base64.b64decode("AQAAAgAgAAAAAAAAAAAAAAAAAAA=")  # cap_net_raw=ep
    layer = Layer().add("tool", b"#!/bin/sh\n", mode=0o4755,
                        pax={"SCHILY.xattr.user.origin": "here", "SCHILY.xattr.security.capability":
                             capability.decode("latin-1")})
    layer.add("past", b"before the epoch" * 20, pax={"mtime": "-1.5"}, mtime=-1.5)
    layer.add("fraction", b"f" * 300, mtime=SECONDS + 0.123456789)
    return [layer.bytes()]


def names():
    long = "long/" + "n" * 200 + "/" + "m" * 150
    pax = Layer(tarfile.PAX_FORMAT).add(long + "-pax", b"p" * 400).add("caf\u00e9", b"c" * 300)
    gnu = Layer(tarfile.GNU_FORMAT).add(long + "-gnu", b"g" * 500).symlink("far", "x" * 180)
    raw = Layer(tarfile.GNU_FORMAT).add("latin-\udce9", b"not UTF-8" * 50)
    return [pax.bytes(), gnu.bytes(), raw.bytes()]


def absolute_link():
    lower = Layer().folder("usr").folder("usr/lib").add("usr/lib/a.so", b"a" * 999).symlink("lib", "/usr/lib")
    upper = Layer().add("lib/c.so", b"c" * 2000)
    return [lower.bytes(), upper.bytes()]


def ends():
    return [Layer().add("none", b"1" * 600).bytes(end=0), Layer().add("one", b"2" * 600).bytes(end=1),
            Layer().add("twenty", b"3" * 600).bytes(end=20)]


def plain():
    one = Layer().folder("srv").add("srv/page", b"<p>" * 5000)
    two = Layer().add("srv/.wh.page").add("srv/other", os.urandom(70000))
    yield simple("plain", [one.bytes(), two.bytes()], annotations={"org.example.key": "value"})
    yield simple("docker", [Layer().add("d", b"docker" * 100).bytes()], docker=True)
    yield simple("hardlinks", hardlinks())
    yield simple("attributes", attributes())
    yield simple("names", names())
    # Many names, among them one that looks like an ID, and one of a registry with a port.
    name = simple("tags", [Layer().add("t", b"tagged" * 80).bytes()])
    run("podman", "tag", name, "localhost/odd/tags:two", "localhost:5000/a/b:3", "localhost/deadbeef:latest",
        "docker.io/library/z:latest")
    yield name
    # Untagged, but it once had a name.
    name = simple("untagged", [Layer().add("u", b"untagged" * 70).bytes()])
    image = run("podman", "image", "inspect", "--format", "{{.Id}}", name)
    run("podman", "untag", name)
    yield image


def odd():
    yield simple("whiteouts", whiteouts())
    same = Layer().add("same", b"same" * 200).bytes()
    yield simple("duplicate", [same, Layer().add("between", b"b" * 300).bytes(), same])
    empty = bytes(1024)
    yield simple("empty", [empty, Layer().add("x", b"x" * 500).bytes(), empty],
                 history=[{"created_by": "base"}, {"created_by": "ENV x", "empty_layer": True},
                          {"created_by": "empty"}, {"created_by": "x"}, {"created_by": "empty"}])
    yield simple("link", absolute_link())
    yield simple("links", links())
    yield simple("ends", ends())
    yield simple("zstd", [Layer().add("z", b"zstd" * 900).bytes()], zstd=True)
    yield simple("foreign", [Layer().add("f", b"foreign" * 90).bytes()], arch="arm64")
    # Pulled by way of an index, whose digest the image is known by, too.
    layout = Layout()
    own = layout.image([BASE, Layer().add("i", b"indexed" * 64).bytes()], label="index")
    own["platform"] = {"architecture": "amd64", "os": "linux"}
    index = {"schemaVersion": 2, "mediaType": OCI % "index" + "+json", "manifests": [own]}
    index = layout.blob(json.dumps(index, indent=2).encode(), index["mediaType"])
    yield layout.put(index, "localhost/odd/index:1")
    # Two simple signatures, which begin as OpenPGP's packets do, and one of the other kind.
    layout = Layout()
    other = {"mimeType": "application/vnd.dev.cosign.simplesigning.v1+json", "payload": "e30=", "annotations": {}}
    signatures = [b"\x90" + os.urandom(300), b"\x90" + os.urandom(411),
                  b"\0sigstore-json\n" + json.dumps(other).encode()]
    own = layout.image([BASE, Layer().add("s", b"signed" * 90).bytes()], label="signed")
    yield layout.put_signed(own, "localhost/odd/signed:1", signatures)
    # Known by a digest alone: no tool of the host makes that without a registry.
    name = simple("digest", [Layer().add("g", b"by digest" * 64).bytes()])
    yield only_by_digest(name)
    run("podman", "manifest", "create", "localhost/odd/list:1")
    run("podman", "manifest", "add", "localhost/odd/list:1", "containers-storage:localhost/odd/whiteouts:1")
    yield "localhost/odd/list:1"


def only_by_digest(name):
    path = f"{STORE['graphRoot']}/{STORE['graphDriverName']}-images/images.json"
    with open(path) as file:
        images = json.load(file)
    for image in images:
        if name in image.get("names", []):
            image["names"] = [name.rsplit(":", 1)[0] + "@" + image["digest"]]
            found = image["names"][0]
    with open(path + ".new", "w") as file:
        json.dump(images, file)
    os.rename(path + ".new", path)
    return found


def sparse():
    """A tar with a sparse file as GNU tar writes it by default: Podman unpacks it, and keeps too little
    to make it again."""
    folder = tempfile.mkdtemp(dir=WORK)
    with open(folder + "/holes", "wb") as file:
        file.write(b"a" * 5000)
        file.seek(1 << 20)
        file.write(b"b" * 7000)
        file.truncate(3 << 20)
    tar = subprocess.run(["tar", "-C", folder, "--format=pax", "--sparse", "--mtime=@%d" % SECONDS, "-cf", "-",
                          "holes"], check=True, stdout=subprocess.PIPE).stdout
    return [tar]


def changed():
    yield simple("whiteouts", whiteouts())
    yield simple("hardlinks", hardlinks())
    yield simple("attributes", attributes())
    yield simple("sparse", sparse())
    yield simple("contents", [Layer().add("t", b"contents" * 80).bytes()])


def rewrite(path, change):
    with open(path) as file:
        entries = json.load(file)
    for entry in entries:
        change(entry)
    with open(path + ".new", "w") as file:
        json.dump(entries, file)
    os.rename(path + ".new", path)


def broken():
    """As a store is that lost files, or that pulled a layer in parts."""
    home = f"{STORE['graphRoot']}/{STORE['graphDriverName']}"
    with open(home + "-images/images.json") as file:
        images = json.load(file)
    with open(home + "-layers/layers.json") as file:
        parents = {layer["id"]: layer.get("parent") for layer in json.load(file)}
    top = {}
    for image in images:
        name = image["names"][0].split("/")[-1].split(":")[0]
        top[name] = image["layer"]
        layer = image["layer"]
        # All but the one at the bottom, which the others need too.
        while name in ("whiteouts", "hardlinks", "attributes") and parents[layer]:
            os.remove(f"{home}-layers/{layer}.tar-split.gz")
            layer = parents[layer]

    def by_contents(layer):
        if layer["id"] == top["contents"]:
            layer["flags"] = {"expected-layer-diffid": layer.pop("diff-digest")}
            layer["toc-digest"] = "sha256:" + "d" * 64

    def with_another_id(image):
        if image["layer"] == top["contents"]:
            old, image["id"] = image["id"], sha256(("@With TOC:" + image["id"]).encode())
            os.rename(f"{home}-images/{old}", f"{home}-images/{image['id']}")

    rewrite(home + "-layers/layers.json", by_contents)
    rewrite(home + "-images/images.json", with_another_id)


if sys.argv[1:] == ["changed"]:
    for made in changed():
        print(made)
    sys.exit()
if sys.argv[1:] == ["break"]:
    broken()
    sys.exit()
for made in plain():
    print(made)
if sys.argv[1:] != ["plain"]:
    for made in odd():
        print(made)
if sys.argv[1:] == ["across"]:
    print(simple("across", across()))
