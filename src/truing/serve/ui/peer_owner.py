"""Whether a connection over loopback comes from a process of the user who runs the server.

Every user of a machine can connect to its loopback addresses, but the texts of runs are readable
by their owner alone. Linux tells the user of each connection in /proc/net/tcp.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from pathlib import Path

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
# Columns of the tables.
_STATE, _USER, _INODE = 3, 7, 9
_ESTABLISHED = "01"
_ROOT = 0


def is_same_user(
    client: tuple[str, int], server: tuple[str, int], tables: tuple[Path, ...] = _TABLES
) -> bool:
    """Returns whether the client's end of a connection belongs to this user, or to root.

    False where it cannot be told: another system than Linux, another machine, a hidden table.
    """
    try:
        ends = {_encode(*client), _encode_mapped(*client)}
        other_ends = {_encode(*server), _encode_mapped(*server)}
    except ValueError:
        return False
    for table in tables:
        try:
            lines = table.read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) <= _INODE or fields[1] not in ends or fields[2] not in other_ends:
                continue
            # A connection that is being closed has no socket, and the kernel writes user 0 for it.
            if fields[_STATE] == _ESTABLISHED and fields[_INODE] != "0":
                return int(fields[_USER]) in (os.getuid(), _ROOT)
    return False


def _encode(host: str, port: int) -> str:
    """Returns an address as the kernel's table writes it: words of 32 bits in host order."""
    packed = ipaddress.ip_address(host).packed
    words = (packed[i : i + 4] for i in range(0, len(packed), 4))
    if sys.byteorder == "little":
        words = (word[::-1] for word in words)
    return f"{b''.join(words).hex().upper()}:{port:04X}"


def _encode_mapped(host: str, port: int) -> str:
    """Returns an IPv4 address as a socket of IPv6 has it (`::ffff:127.0.0.1`)."""
    address = ipaddress.ip_address(host)
    return _encode(f"::ffff:{host}" if address.version == 4 else host, port)
