#!/usr/bin/env python3
"""A client of Billet's API: one file, the standard library alone, Python 3.9 or newer.

    import billet

    site = billet.Client("http://127.0.0.1:8090", token="...")
    for node in site.nodes(state="available", fields=["name", "serial"]):
        print(node["name"], node["serial"])

As a program it shows what it can do: ``billet.py nodes``, ``billet.py enroll NAME MAC``, ``billet.py follow``.
Server and token come from BILLET_SERVER and BILLET_TOKEN (or BILLET_TOKEN_FILE).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any, Dict, Iterable, Iterator, List, Mapping, Optional

Json = Dict[str, Any]

#: Seconds until the server has answered.
TIMEOUT = 75
#: How often a request is made again where the server says that it has no room (429, 503), or cannot be reached.
TRIES = 5


class Problem(Exception):
    """The server said no (RFC 9457): ``code`` is stable, ``hint`` says what to do."""

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)
        self.status, self.code, self.message, self.hint = status, code, message, hint


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server said, and the tag by which a change can be meant for exactly this."""

    value: Any
    etag: Optional[str]


@dataclasses.dataclass(frozen=True)
class Event:
    """One message of the stream of events: its kind, its number where it has one, and what it says."""

    kind: str
    id: Optional[int]
    data: Any


class Client:
    """Talks to one server. It is safe to use from several threads: nothing is kept between two requests."""

    def __init__(self, server: str, token: str, timeout: float = TIMEOUT) -> None:
        self.base = server.rstrip("/") + "/api/v1"
        self.token, self.timeout = token, timeout

    # Requests

    def request(
        self,
        method: str,
        path: str,
        body: Optional[Json] = None,
        query: Optional[Mapping[str, Any]] = None,
        if_match: Optional[str] = None,
        key: Optional[str] = None,
    ) -> Answer:
        """Makes a request, again where the server has no room. With ``key`` the server does the same thing once."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        data = None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body).encode()
        if if_match is not None:
            headers["If-Match"] = if_match
        if key is not None:
            headers["Idempotency-Key"] = key
        # Only what can be made twice is made twice.
        repeatable = method in ("GET", "PUT", "DELETE") or key is not None
        request = urllib.request.Request(self._url(path, query), data, headers, method=method)
        for attempt in range(TRIES):
            last = attempt + 1 == TRIES
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    text = response.read()
                    return Answer(json.loads(text) if text else None, response.headers.get("ETag"))
            except urllib.error.HTTPError as error:
                problem = _problem(error)
                if last or error.code not in (429, 503) or (error.code == 503 and not repeatable):
                    raise problem from None
                time.sleep(float(error.headers.get("Retry-After") or 2**attempt / 10))
            except urllib.error.URLError:
                if last or not repeatable:
                    raise
                time.sleep(2**attempt / 10)
        raise AssertionError("the last attempt returns or raises")

    def pages(self, path: str, query: Optional[Mapping[str, Any]] = None) -> Iterator[Json]:
        """All items of a list, page by page."""
        query = dict(query or {})
        while True:
            page = self.request("GET", path, query=query).value
            yield from page["items"]
            if page.get("next") is None:
                return
            query["cursor"] = page["next"]

    def _url(self, path: str, query: Optional[Mapping[str, Any]]) -> str:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self.base + path + ("?" + urllib.parse.urlencode(given) if given else "")

    # Nodes

    def nodes(self, fields: Optional[Iterable[str]] = None, **filters: Any) -> Iterator[Json]:
        """Nodes by name; ``state``, ``rack``, ``maintenance`` and ``q`` filter."""
        query = {**filters, "limit": 1000}
        if fields is not None:
            query["fields"] = ",".join(fields)
        if "maintenance" in query:
            query["maintenance"] = str(bool(query["maintenance"])).lower()
        return self.pages("/nodes", query)

    def node(self, node: str) -> Answer:
        """One node with its inventory, and its tag."""
        return self.request("GET", f"/nodes/{_part(node)}")

    def enroll(self, macs: List[str], name: Optional[str] = None, key: Optional[str] = None, **facts: Any) -> Json:
        """Announces a machine before it boots. Done once, also where the answer is lost on the way."""
        body = {"macs": macs, **({"name": name} if name else {}), **facts}
        return self.request("POST", "/nodes", body, key=key or str(uuid.uuid4())).value

    def place(self, node: str, rack: str, unit: Optional[int] = None, if_match: Optional[str] = None) -> Json:
        """Says where a node stands; with ``if_match`` only if nobody changed it meanwhile."""
        body = {"rack": rack, **({"unit": unit} if unit else {})}
        return self.request("PUT", f"/nodes/{_part(node)}/place", body, if_match=if_match).value

    def act(self, verb: str, nodes: Optional[List[str]] = None, filter: Optional[Json] = None, **more: Any) -> Json:
        """One verb for many nodes; one answer for each."""
        body: Json = {"verb": verb, **more}
        body.update({"nodes": nodes} if nodes is not None else {"filter": filter or {}})
        return self.request("POST", "/nodes/actions", body).value

    # Events

    def follow(self, after: Optional[int] = None) -> Iterator[Event]:
        """What happens, as it happens. Goes on after the last event where the connection breaks."""
        while True:
            headers = {"Authorization": f"Bearer {self.token}", "Accept": "text/event-stream"}
            if after is not None:
                headers["Last-Event-ID"] = str(after)
            request = urllib.request.Request(self.base + "/events/stream", headers=headers)
            try:
                # A comment comes every 15 seconds: a longer silence is a dead connection.
                with urllib.request.urlopen(request, timeout=45) as response:
                    for event in _messages(response):
                        after = event.id if event.id is not None else after
                        yield event
            except urllib.error.HTTPError as error:
                raise _problem(error) from None
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(1)


def _part(name: str) -> str:
    return urllib.parse.quote(name, safe="")


def _problem(error: urllib.error.HTTPError) -> Problem:
    try:
        told = json.loads(error.read())
        return Problem(error.code, told["code"], told["message"], told.get("hint", ""))
    except (ValueError, KeyError, TypeError):
        return Problem(error.code, "http", f"the server answered {error.code}")


def _messages(lines: Iterable[bytes]) -> Iterator[Event]:
    """Server-sent events (HTML standard, section 9.2)."""
    kind, number, data = "message", None, []  # type: ignore[var-annotated]
    for raw in lines:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield Event(kind, number, json.loads("\n".join(data)))
            kind, number, data = "message", None, []
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if field == "event":
            kind = value
        elif field == "id":
            number = int(value)
        elif field == "data":
            data.append(value)


def from_environment() -> Client:
    """The client that BILLET_SERVER, and BILLET_TOKEN or BILLET_TOKEN_FILE, describe."""
    token = os.environ.get("BILLET_TOKEN", "")
    if not token:
        path = os.environ.get("BILLET_TOKEN_FILE", "/var/lib/billet/operator.token")
        with open(path, encoding="utf-8") as file:
            token = file.read()
    return Client(os.environ.get("BILLET_SERVER", "http://127.0.0.1:8090"), token.strip())


def main() -> int:
    parser = argparse.ArgumentParser(description="A client of Billet's API.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    listed = verbs.add_parser("nodes", help="list nodes")
    listed.add_argument("--state")
    announced = verbs.add_parser("enroll", help="announce a machine")
    announced.add_argument("name")
    announced.add_argument("mac", nargs="+")
    followed = verbs.add_parser("follow", help="follow events")
    followed.add_argument("--after", type=int)
    followed.add_argument("--count", type=int, help="end after so many")
    args = parser.parse_args()
    site = from_environment()
    try:
        if args.verb == "nodes":
            for node in site.nodes(fields=["name", "state", "serial"], state=args.state):
                print(f"{node['name']:<24} {node['state']:<12} {node['serial'] or '-'}")
        elif args.verb == "enroll":
            print(site.enroll(args.mac, name=args.name)["id"])
        else:
            shown = 0
            for event in site.follow(args.after):
                if event.kind != "event":
                    continue
                print(f"{event.data['id']} {event.data['kind']} {event.data['message']}", flush=True)
                shown += 1
                if shown == args.count:
                    break
    except Problem as problem:
        print(f"billet.py: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
