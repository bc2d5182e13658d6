"""Start a command on every rank by MPI: sshd on the ranks but the first, mpirun on the first.

Runs inside the engine's image, which has Open MPI, ssh and sshd (scripts/image.py adds what is missing):
Python 3.10+, standard library only. All ranks share one key, for logging in and as host key, so nobody else
gets in and no rank logs in anywhere else; it lets in from rank 0's address alone, to run commands and for nothing else.

usage   mpi.py listen --address A --port P --head A       `head`: rank 0's address
        mpi.py run --hosts A,B,… --port P -- COMMAND…    the first host is this one and rank 0
        mpi.py rank COMMAND…                             one rank, as mpirun starts it
exit    mpirun's or sshd's own
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time

SECRET = "/run/secrets/rank_key"
"""Private key, ed25519; a Swarm secret, or a file in the container."""

ENVIRONMENT = "/proc/1/environ"
"""Of the container: its first process has it from Docker."""

SECRET_ENVIRONMENT = "/run/secrets/environment"
"""Variables that are secrets, where there are any (inside/environment.py): JSON, name → value."""

FOLDER = "/run/dgx-spark-mpi"
KEY, PUBLIC, CONFIG, HOSTS = (f"{FOLDER}/{name}" for name in ("key", "authorized_keys", "ssh_config", "hostfile"))

LIMIT = 120
"""Seconds for the other ranks' sshd to answer; they are started a moment before mpirun."""

CLIENT = """Host *
  Port {port}
  User root
  IdentityFile {key}
  IdentitiesOnly yes
  BatchMode yes
  BindAddress {address}
  ConnectTimeout 5
  HostKeyAlias rank
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


def prepare(port: int, head: str) -> None:
    """The key where ssh accepts it (0600), and what belongs to it. `head`: whence rank 0 logs in."""
    os.makedirs(FOLDER, mode=0o700, exist_ok=True)
    with open(SECRET) as stream:
        write(KEY, stream.read())
    public = subprocess.run(["ssh-keygen", "-y", "-f", KEY], check=True, capture_output=True, text=True).stdout
    write(PUBLIC, f'restrict,from="{head}" {public}')
    write(f"{FOLDER}/known_hosts", f"rank {public}")
    write(CONFIG, CLIENT.format(port=port, key=KEY, folder=FOLDER, address=head))


def write(path: str, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(text)


def listen(options: argparse.Namespace) -> None:
    prepare(options.port, options.head)
    os.makedirs("/run/sshd", exist_ok=True)
    settings = {
        "ListenAddress": options.address,
        "Port": options.port,
        "HostKey": KEY,
        "AuthorizedKeysFile": PUBLIC,
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "PidFile": "none",
        "LogLevel": "ERROR",
    }
    words = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words])


def run(options: argparse.Namespace) -> None:
    hosts = options.hosts.split(",")
    prepare(options.port, hosts[0])
    write(HOSTS, "".join(f"{host} slots=1\n" for host in hosts))
    for host in hosts[1:]:
        reach(host)
    mpirun = shutil.which("mpirun")
    if not mpirun:
        sys.exit("this image has no mpirun")
    # The prefix goes along: the PATH of an ssh session lacks it.
    prefix = os.path.dirname(os.path.dirname(mpirun))
    order = ["--allow-run-as-root", "--prefix", prefix, "-np", str(len(hosts)), "--hostfile", HOSTS]
    order += ["--map-by", "ppr:1:node", "--bind-to", "none"]
    order += ["--mca", "plm_rsh_agent", "ssh", "--mca", "plm_rsh_args", f"-F {CONFIG}"]
    os.execv(mpirun, [mpirun, *order, sys.executable, __file__, "rank", *options.command])


def reach(host: str) -> None:
    """Wait for a rank's sshd."""
    deadline = time.monotonic() + LIMIT
    while True:
        done = subprocess.run(["ssh", "-F", CONFIG, host, "true"], stderr=subprocess.PIPE, text=True)
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            sys.exit(f"rank at {host} does not let MPI in: {done.stderr.strip()}")
        time.sleep(1)


def rank(command: list[str]) -> None:
    """With the environment of its own container: an ssh session has none of it, and each rank's differs."""
    with open(ENVIRONMENT, "rb") as stream:
        own = dict(item.split(b"=", 1) for item in stream.read().split(b"\0") if b"=" in item)
    if os.path.exists(SECRET_ENVIRONMENT):
        with open(SECRET_ENVIRONMENT, encoding="utf-8") as held:
            own |= {name.encode(): value.encode() for name, value in json.load(held).items()}
    os.execvpe(command[0], command, {**os.environb, **own})


def main() -> None:
    if sys.argv[1:2] == ["rank"]:
        rank(sys.argv[2:])
    words = argparse.ArgumentParser(allow_abbrev=False)
    verbs = words.add_subparsers(dest="verb", required=True)
    listener, runner = verbs.add_parser("listen"), verbs.add_parser("run")
    listener.add_argument("--address", required=True)
    listener.add_argument("--head", required=True)
    runner.add_argument("--hosts", required=True)
    runner.add_argument("command", nargs="+")
    for verb in (listener, runner):
        verb.add_argument("--port", type=int, required=True)
    options = words.parse_args()
    {"listen": listen, "run": run}[options.verb](options)


if __name__ == "__main__":
    main()
