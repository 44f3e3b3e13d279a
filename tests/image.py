"""Builds and runs the container's image where no container engine is to be had: its Dockerfile, line by line.

    python -m tests.image    (as root, some 40 seconds once pip has its wheels in its cache)

Invariant: a line is carried out as it stands, in a root folder of its own (chroot in a mount namespace), or it is an
error. What stands in for the base image is this machine's `/usr` and Python, read-only; neither its packages nor its
digest are tried. The image then runs as the compose file runs it: its user, no capability, a root file system that is
read-only, and here no network but its own loopback interface, until its health check is content.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).parents[1]
DOCKERFILE = PROJECT / "deploy/container/Dockerfile"
_INDEX_VARIABLES = ("PIP_CERT", "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "SSL_CERT_FILE")
"""What this machine needs to reach a package index, and an image's builder does not."""
_PATH = "/base:/usr/sbin:/usr/bin"
_HOST_FOLDERS = ("/usr", "/etc/ssl", "/dev", sys.base_prefix)
_HOST_FILES = ("/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/ld.so.cache", "/etc/pip.conf")
_ENTER = """
root=$1; cache=$2; mode=$3; shift 3
mount --bind "$root" "$root"
for folder in $HOST_FOLDERS; do
  mkdir -p "$root$folder"; mount --rbind "$folder" "$root$folder"; mount -o remount,bind,ro "$root$folder"
done
mount -t proc proc "$root/proc"
if [ "$mode" = build ]; then
  mkdir -p "$root/root/.cache/pip"; mount --bind "$cache" "$root/root/.cache/pip"
else
  python3 -c "$LOOPBACK"
  mount -o remount,bind,ro "$root"
  for folder in /data /tmp; do mount -t tmpfs -o mode=1777 none "$root$folder"; done
fi
exec chroot "$root" "$@"
"""
_LOOPBACK_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 1))
"""
_RUN = """
as_image="setpriv --reuid=$1 --regid=$2 --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs"; shift 2
$as_image "$@" &
daemon=$!
healthy=no
for attempt in $(seq 120); do
  if reason=$($as_image $HEALTH 2>&1); then healthy=yes; break; fi
  kill -0 $daemon || break
  sleep 0.5
done
[ $healthy = yes ] || { echo "not healthy: $reason" >&2; exit 1; }
if $as_image touch /opt/ingestor/written /watch/written 2>/dev/null; then
  echo "the root file system can be written" >&2
  exit 1
fi
$as_image ingestor query "a comet" --json
kill -TERM $daemon
wait $daemon
"""


@dataclass(slots=True)
class Stage:
    """One stage of the Dockerfile: its root folder, and what its lines have set so far."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    said: dict[str, str] = field(default_factory=dict)
    """The last word of each instruction that only tells how to run the image."""


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile in order: name and all that follows, lines joined as Docker joins them."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, rest = line.partition(" ")
            yield name, " ".join(rest.split()) if name != "RUN" else rest.strip()


def enter(stage: Stage, mode: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the stage's root folder; in the mode `run` it has no network, and writes to no file of it."""
    cache = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "dir"], capture_output=True, text=True, check=True
    ).stdout.strip()
    Path(cache).mkdir(parents=True, exist_ok=True)
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *(["--net"] if mode == "run" else [])]
    return subprocess.run(
        [*apart, "sh", "-ec", _ENTER, "sh", stage.root, cache, mode, *command],
        env={
            **{name: os.environ[name] for name in _INDEX_VARIABLES if name in os.environ},
            "HOST_FOLDERS": " ".join(_HOST_FOLDERS),
            "LOOPBACK": _LOOPBACK_UP,
            "PATH": _PATH,
            "HOME": "/root",
            "PIP_BREAK_SYSTEM_PACKAGES": "1",  # Debian's Python wants to be told; the image's has no such wish
            **stage.variables,
            **variables,
        },
        stdout=subprocess.PIPE if mode == "run" else None,
        text=True,
        check=True,
    )


def base(root: Path) -> Stage:
    """What stands in for a base image."""
    for folder in ("base", "etc", "tmp", "proc", "root", "var"):
        (root / folder).mkdir(parents=True)
    (root / "base/python").symlink_to(f"{sys.base_prefix}/bin/python3")
    (root / "tmp").chmod(0o1777)
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n", encoding="ascii")
    (root / "etc/group").write_text("root:x:0:\n", encoding="ascii")
    for file in _HOST_FILES:
        if Path(file).exists():
            shutil.copy(file, root / file.lstrip("/"))
    return Stage(root)


def copy(stage: Stage, words: list[str], stages: dict[str, Stage]) -> None:
    """Carry out a COPY. From another stage a folder is moved, since nobody needs it there any more."""
    if words[0].startswith("--from="):
        origin, source, target = words
        shutil.move(inside(stages[origin.removeprefix("--from=")], source), inside(stage, target))
        return
    *sources, target = words
    for source in sources:
        if (PROJECT / source).is_dir():
            shutil.copytree(PROJECT / source, inside(stage, target), ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(PROJECT / source, inside(stage, target))


def inside(stage: Stage, path: str) -> Path:
    """Where a path of the image lies on this machine; the folder above it is made."""
    place = stage.root / os.path.join(stage.folder, path).lstrip("/")  # noqa: PTH118 - as the image reads it
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def build(folder: Path) -> Stage:
    """Carry out the Dockerfile; its last stage comes back. Raises ValueError at an unknown instruction."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for name, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        print(f"{name} {rest}", flush=True)  # noqa: T201 - what is carried out is what this command tells
        words = rest.split()
        match name:
            case "ARG" | "EXPOSE" | "VOLUME" | "HEALTHCHECK" | "ENTRYPOINT" | "CMD" | "USER":
                stage.said[name] = rest
            case "FROM":
                stage = base(folder / f"stage{len(stages)}")
                stages[words[2] if len(words) == 3 else "the last"] = stage
            case "ENV":
                for each in shlex.split(rest):
                    variable, _, value = each.partition("=")
                    stage.variables[variable] = value.replace("$PATH", _PATH)
            case "WORKDIR":
                stage.folder = rest
                inside(stage, rest).mkdir(exist_ok=True)
            case "RUN":
                command = re.sub(r"^--mount=type=cache,target=/root/\.cache/pip\s+", "", rest)
                enter(stage, "build", "sh", "-ec", f"cd {stage.folder}; {command}")
            case "COPY":
                copy(stage, words, stages)
            case _:
                message = f"the Dockerfile has an instruction that is not known here: {name}"
                raise ValueError(message)
    return stage


def main() -> None:
    """Build the image, run it on one document, and ask for that."""
    if os.geteuid() != 0:
        sys.exit("the image is built in root folders of its own: run this as root")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        stage = build(Path(folder))
        (stage.root / "watch/note.md").write_text("# Comet\n\nA comet was seen over the harbour.\n", encoding="utf-8")
        user, _, group = stage.said["USER"].partition(":")
        command = json.loads(stage.said["ENTRYPOINT"]) + json.loads(stage.said["CMD"])
        health = json.loads(stage.said["HEALTHCHECK"].partition("CMD ")[2])
        script = f"cd {stage.folder}\n{_RUN}"
        done = enter(
            stage, "run", "sh", "-ec", script, "sh", user, group, *command, HEALTH=shlex.join(health), HOME="/data"
        )
        hits = json.loads(done.stdout)
    print(f"healthy, and found: {[hit['source'] for hit in hits]}")  # noqa: T201 - the result of this command


if __name__ == "__main__":
    main()
