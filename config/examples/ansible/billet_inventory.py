#!/usr/bin/env python3
"""Ansible's dynamic inventory out of Billet.

    ansible-inventory -i billet_inventory.py --list
    ansible -i billet_inventory.py state_active -m ping

Hosts are the nodes that have an OS (with BILLET_STATES=all: every node), by their names. Groups: ``state_<state>``,
``rack_<rack>``, ``room_<room>``, ``pool_<pool>``, ``flavor_<flavor>``, ``project_<project>``, ``tag_<tag>``, ``image_<image>``;
a group is there where the server tells that of a node. ``ansible_host`` is the address that Billet lent to the OS, or the
static one.

Server and token come from BILLET_SERVER, and BILLET_TOKEN or BILLET_TOKEN_FILE. The token of a reader is enough. The client
is ``../python/billet.py``, or a copy of it beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from typing import Any, Dict, Iterator, List, Optional, Tuple

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "python")]

import billet  # noqa: E402

Json = Dict[str, Any]


def group(kind: str, name: str) -> str:
    """A name that Ansible takes for a group: letters, digits and underscores."""
    return f"{kind}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"


def groups(node: Json) -> Iterator[str]:
    """The groups of a node."""
    yield group("state", node["state"])
    place = node.get("place") or {}
    for kind in ("rack", "room"):
        if place.get(kind):
            yield group(kind, place[kind])
    for kind in ("pool", "flavor", "project"):
        if node.get(kind):
            yield group(kind, node[kind])
    for tag in node.get("tags") or []:
        yield group("tag", tag)
    if node.get("installed"):
        yield group("image", node["installed"]["image_name"].split(":")[0])


def address(node: Json) -> Optional[str]:
    """The address of the OS: the static one, or the first that is lent to one of its ports, IPv4 before IPv6."""
    static = (node.get("network") or {}).get("address")
    if static:
        return static.split("/")[0]
    lent: List[str] = [lease["address"] for lease in node.get("addresses") or []]
    return min(lent, key=lambda text: ":" in text) if lent else None


def variables(node: Json) -> Json:
    """What Ansible is told of a node."""
    found = address(node)
    told: Json = {
        "billet_id": node["id"],
        "billet_state": node["state"],
        "billet_serial": node["serial"],
        "billet_macs": node["macs"],
        "billet_place": node.get("place"),
        "billet_hardware": node.get("hardware"),
        "billet_image": (node.get("installed") or {}).get("image_name"),
    }
    if found:
        told["ansible_host"] = found
    return told


def inventory(site: billet.Client, states: List[str]) -> Json:
    """The whole inventory, as Ansible wants it from a script: with the variables of all hosts in ``_meta``."""
    hosts: Json = {}
    members: Dict[str, List[str]] = {}
    for name, node in _nodes(site, states):
        hosts[name] = variables(node)
        for one in groups(node):
            members.setdefault(one, []).append(name)
    listed: Json = {one: {"hosts": sorted(names)} for one, names in sorted(members.items())}
    listed["all"] = {"children": sorted(members), "hosts": sorted(hosts)}
    listed["_meta"] = {"hostvars": hosts}
    return listed


def _nodes(site: billet.Client, states: List[str]) -> Iterator[Tuple[str, Json]]:
    for node in site.nodes():
        if states and node["state"] not in states:
            continue
        # Addresses are told of one node at a time.
        yield node["name"], site.node(node["id"]).value


def main() -> int:
    parser = argparse.ArgumentParser(description="Ansible's dynamic inventory out of Billet.")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--list", action="store_true", help="the whole inventory")
    which.add_argument("--host", help="the variables of one host")
    args = parser.parse_args()
    wanted = os.environ.get("BILLET_STATES", "active")
    states = [] if wanted == "all" else wanted.split(",")
    try:
        site = billet.from_environment()
        told = variables(site.node(args.host).value) if args.host else inventory(site, states)
    except billet.Problem as problem:
        print(f"billet_inventory.py: {problem}", file=sys.stderr)
        return 1
    print(json.dumps(told, indent=2, sort_keys=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
