#!/usr/bin/env python3
"""Runs inside a host that has images, and a repository with a snapshot of all of them.

    image-export.py inside    compares what podkeep shows in each image with what Podman mounts
    image-export.py export    exports each image in every form, below /root/exported; prints how many, and
                              how many layers of the store came out with the DiffIDs that Podman tells
    image-export.py load      loads what was exported, each form by itself, and compares IDs and layers

Ends with what was compared; a difference is an error."""
import base64, gzip, hashlib, json, os, subprocess, sys

PLACE = "/root/exported"


def run(*argv, text=True):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=text).stdout


def images():
    """IDs of images that have layers. Of a manifest list Podman shows one that it lists, or none."""
    listed = set(run("podman", "images", "-a", "-q", "--no-trunc").split())
    return [image for image in sorted(image.removeprefix("sha256:") for image in listed) if shows(image) == image]


def shows(image):
    asked = subprocess.run(["podman", "image", "inspect", "--format", "{{.Id}}", image],
                           stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return asked.stdout.strip()


def layers(image):
    return json.loads(run("podman", "image", "inspect", image))[0]["RootFS"]["Layers"]


def mounted(image):
    root = os.fsencode(run("podman", "image", "mount", image).strip())
    found = {}
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            below = b"/" + os.path.relpath(path, root)
            if os.path.islink(path):
                found[below] = "symlink", os.readlink(path)
            elif os.path.isdir(path):
                found[below] = "directory", None
            else:
                with open(path, "rb") as file:
                    found[below] = "file", hashlib.sha256(file.read()).hexdigest()
    run("podman", "image", "unmount", image)
    return found


def shown(image):
    found = {}
    # One program is under many names; each dump takes a moment.
    contents = {}
    for line in run("podkeep", "--json", "ls", "latest", f"image:{image}:/").splitlines():
        entry = json.loads(line)
        if entry["type"] != "entry" or entry["path"] == "/":
            continue
        path = base64.b64decode(entry["path_b64"]) if "path_b64" in entry else entry["path"].encode()
        content = None
        if entry["kind"] == "file":
            is_applet = path.startswith(b"/bin/")
            if not is_applet or entry["size"] not in contents:
                argument = b"".join(b"\\x%02x" % byte if byte > 126 else bytes([byte]) for byte in path)
                data = run("podkeep", "dump", "latest", b"image:" + image.encode() + b":" + argument, text=False)
                assert len(data) == entry["size"], path
                contents[entry["size"]] = hashlib.sha256(data).hexdigest()
            content = contents[entry["size"]]
        elif entry["kind"] == "symlink":
            content = os.fsencode(entry["target"])
        found[path] = entry["kind"], content
    return found


def inside():
    compared = 0
    for image in images():
        ours, podmans = shown(image), mounted(image)
        for path in sorted(ours.keys() | podmans.keys()):
            if ours.get(path) != podmans.get(path):
                sys.exit(f"{image} {path}: {ours.get(path)} is shown, {podmans.get(path)} is mounted")
        compared += len(ours)
    print(compared)


def hashed(folder):
    """The DiffIDs of the layers in an exported folder, as their bytes tell."""
    def blob(digest):
        with open(f"{folder}/blobs/{digest.replace(':', '/')}", "rb") as file:
            return file.read()

    with open(folder + "/index.json") as file:
        manifest = json.loads(blob(json.load(file)["manifests"][0]["digest"]))
    found = []
    for layer in manifest["layers"]:
        tar = blob(layer["digest"])
        if layer["mediaType"].endswith("gzip"):
            tar = gzip.decompress(tar)
        found.append("sha256:" + hashlib.sha256(tar).hexdigest())
    return found


def export():
    os.makedirs(PLACE)
    known = {image: layers(image) for image in images()}
    with open(PLACE + "/known.json", "w") as file:
        json.dump(known, file)
    for image in known:
        at = f"{PLACE}/{image}"
        item = f"image:{image}"
        run("podkeep", "-q", "export", "latest", item, "--oci", at)
        run("podkeep", "-q", "export", "latest", item, "--oci", at + ".oci.tar")
        with open(at + ".docker.tar", "wb") as file:
            subprocess.run(["podkeep", "export", "latest", item, "--docker-archive", "-"], check=True, stdout=file)
    # A layer of the store is one with all that lie below it.
    rebuilt = set()
    for image, diff_ids in known.items():
        found = hashed(f"{PLACE}/{image}")
        if found != diff_ids:
            sys.exit(f"{image}: the layers {found} were exported, not {diff_ids}")
        rebuilt |= {tuple(diff_ids[:count]) for count in range(1, len(diff_ids) + 1)}
    print(len(known), len(rebuilt))


def load():
    with open(PLACE + "/known.json") as file:
        known = json.load(file)
    for end in ["", ".oci.tar", ".docker.tar"]:
        run("podman", "rmi", "-a", "-f")
        for image in known:
            run("podman", "load", "-q", "-i", f"{PLACE}/{image}{end}")
        loaded = {image: layers(image) for image in images()}
        if loaded != known:
            sys.exit(f"of '{end}' {loaded} was loaded, not {known}")
    # The archive brings the tags, too.
    print(run("podman", "images", "--format", "{{.Repository}}:{{.Tag}}", "--sort", "repository").strip())


{"inside": inside, "export": export, "load": load}[sys.argv[1]]()
