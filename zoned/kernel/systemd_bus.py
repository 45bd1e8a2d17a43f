# SPDX-License-Identifier: Apache-2.0
"""systemd's manager on the system bus. The only module that imports jeepney.

Source: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    HeaderFields,
    MatchRule,
    MessageType,
    message_bus,
    new_method_call,
)
from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]

from zoned.errors import ServiceManager, TryLater

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

logger = logging.getLogger(__name__)

Property = tuple[str, tuple[str, object]]
"""name, (D-Bus signature, value)"""

NO_SUCH_UNIT = "org.freedesktop.systemd1.NoSuchUnit"
UNIT_EXISTS = "org.freedesktop.systemd1.UnitExists"
PROPERTY_READ_ONLY = "org.freedesktop.DBus.Error.PropertyReadOnly"

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = f"{_NAME}.Manager"
_UNIT = f"{_NAME}.Unit"
_PROPERTIES = "org.freedesktop.DBus.Properties"

# A change of AllowedMemoryNodes moves the pages of a whole slice before systemd answers.
_REPLY_SECONDS = 120.0
_JOB_SECONDS = 90.0
# How long a manager that re-executes itself may be away from the bus.
_AWAY_SECONDS = 15.0
_RETRY_PAUSE = 0.1

# The manager has left the bus, and comes back: it does so in daemon-reexec.
_AWAY = frozenset(
    {
        "org.freedesktop.DBus.Error.NoReply",
        "org.freedesktop.DBus.Error.NameHasNoOwner",
        "org.freedesktop.DBus.Error.Disconnected",
    }
)


class UnitStatus(NamedTuple):
    """One row of `systemctl list-units`, as far as it is needed."""

    name: str
    load_state: str
    active_state: str


class Refusal(Exception):
    """A D-Bus error by name: the cause of a ServiceManager error."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def refusal_name(error: ServiceManager) -> str:
    """Return the D-Bus name of the error behind `error`, "" where there is none."""
    return error.__cause__.name if isinstance(error.__cause__, Refusal) else ""


class Manager(Protocol):
    """What zoned asks of systemd. Every method raises ServiceManager; a unit is a full name."""

    def start_transient_unit(self, unit: str, properties: Sequence[Property]) -> None:
        """Make and start a unit, and wait until it is started."""

    def start_unit(self, unit: str) -> None:
        """Start a unit, and wait until it is started."""

    def stop_unit(self, unit: str, mode: str = "fail") -> None:
        """Stop a unit, and wait until it is stopped. `fail`: not where a start is under way."""

    def set_unit_properties(self, unit: str, properties: Sequence[Property]) -> None:
        """Change a unit until the next boot."""

    def unit_property(self, unit: str, interface: str, name: str) -> object | None:
        """Return a property, e.g. of interface ``Unit``; None where the unit is not loaded."""

    def attach_processes(self, unit: str, subgroup: str, pids: Sequence[int]) -> None:
        """Move processes into a unit that has delegated its cgroup."""

    def list_units(self, patterns: Sequence[str]) -> tuple[UnitStatus, ...]:
        """Return the loaded units whose names match shell patterns."""

    def reload(self) -> None:
        """Have systemd read all unit files again."""


class SystemdBus:
    """The real manager. The connection is made at first use, and again when it broke.

    Calls from several threads wait for each other.
    """

    def __init__(self, connect: Callable[[], _Connection] | None = None) -> None:
        self._connect = connect or (lambda: _Connection())
        self._connection: _Connection | None = None
        self._lock = threading.Lock()

    def start_transient_unit(self, unit: str, properties: Sequence[Property]) -> None:
        self._job(
            unit, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", list(properties), []
        )

    def start_unit(self, unit: str) -> None:
        self._job(unit, "StartUnit", "ss", unit, "fail")

    def stop_unit(self, unit: str, mode: str = "fail") -> None:
        self._job(unit, "StopUnit", "ss", unit, mode)

    def set_unit_properties(self, unit: str, properties: Sequence[Property]) -> None:
        runtime = True
        self.call("SetUnitProperties", "sba(sv)", unit, runtime, list(properties))

    def unit_property(self, unit: str, interface: str, name: str) -> object | None:
        try:
            (path,) = self.call("GetUnit", "s", unit)
            reply = self.call(
                "Get", "ss", f"{_NAME}.{interface}", name, path=str(path), interface=_PROPERTIES
            )
        except ServiceManager as error:
            if refusal_name(error) == NO_SUCH_UNIT:
                return None
            raise
        variant = reply[0]
        return variant[1] if isinstance(variant, tuple) else None

    def attach_processes(self, unit: str, subgroup: str, pids: Sequence[int]) -> None:
        self.call("AttachProcessesToUnit", "ssau", unit, subgroup, list(pids))

    def list_units(self, patterns: Sequence[str]) -> tuple[UnitStatus, ...]:
        (rows,) = self.call("ListUnitsByPatterns", "asas", [], list(patterns))
        if not isinstance(rows, list):
            raise ServiceManager("systemd's list of units is no list")
        return tuple(UnitStatus(str(row[0]), str(row[2]), str(row[3])) for row in rows)

    def reload(self) -> None:
        self.call("Reload")

    def call(
        self,
        method: str,
        signature: str = "",
        *arguments: object,
        path: str = _PATH,
        interface: str = _MANAGER,
    ) -> tuple[object, ...]:
        """Call a method of systemd's and return the reply. Raises ServiceManager, TryLater."""
        with self._lock:
            return self._call(method, signature, arguments, path=path, interface=interface)

    def _call(
        self,
        method: str,
        signature: str,
        arguments: tuple[object, ...],
        *,
        path: str = _PATH,
        interface: str = _MANAGER,
        listen: bool = False,
    ) -> tuple[object, ...]:
        address = DBusAddress(path, bus_name=_NAME, interface=interface)
        deadline = time.monotonic() + _AWAY_SECONDS
        while True:
            message = new_method_call(address, method, signature or None, arguments)
            try:
                connection = self._opened()
                if listen:
                    connection.listen()
                return connection.ask(message, _REPLY_SECONDS)
            except Refusal as error:
                if error.name not in _AWAY or time.monotonic() > deadline:
                    raise ServiceManager(f"systemd, {method}: {error}") from error
            except TimeoutError as error:
                self._close()
                raise TryLater(f"systemd did not answer {method} in {_REPLY_SECONDS:.0f} s") from (
                    error
                )
            except OSError as error:
                self._close()
                if time.monotonic() > deadline:
                    raise ServiceManager(
                        f"no connection to the system bus: {error.strerror or error}",
                        hint="is dbus.service running?",
                    ) from error
            time.sleep(_RETRY_PAUSE)

    def _job(self, unit: str, method: str, signature: str, *arguments: object) -> None:
        """Start a job and wait for its end. Raises ServiceManager, TryLater."""
        with self._lock:
            (job,) = self._call(method, signature, arguments, listen=True)
            try:
                result = self._opened().job_result(str(job), _JOB_SECONDS)
                self._opened().listen_no_more()
            except TimeoutError as error:
                self._close()
                raise TryLater(
                    f"systemd, {method} {unit}: not done after {_JOB_SECONDS:.0f} s"
                ) from error
            except OSError as error:
                self._close()
                raise TryLater(f"systemd, {method} {unit}: the bus went away") from error
        if result not in {"done", "skipped"}:
            raise ServiceManager(f"systemd, {method} {unit}: the job ended with {result!r}")

    def _opened(self) -> _Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Connection:
    """One connection to the system bus."""

    # The signals that arrive name their sender by its unique name, so this filter does not.
    _removed = MatchRule(type="signal", interface=_MANAGER, member="JobRemoved", path=_PATH)
    _wanted = MatchRule(
        type="signal", sender=_NAME, interface=_MANAGER, member="JobRemoved", path=_PATH
    )

    def __init__(self) -> None:
        self._bus = open_dbus_connection(bus="SYSTEM")
        self._jobs = self._bus.filter(self._removed, bufsize=1024).queue
        self._listening = False

    def ask(self, message: object, seconds: float) -> tuple[object, ...]:
        """Send a call and return its reply's body. Raises Refusal, TimeoutError, OSError."""
        reply = self._bus.send_and_get_reply(message, timeout=seconds)
        if reply.header.message_type == MessageType.error:
            name = str(reply.header.fields.get(HeaderFields.error_name, ""))
            raise Refusal(name, str(reply.body[0]) if reply.body else name)
        return tuple(reply.body)

    def listen(self) -> None:
        """Hear of the end of jobs from now on.

        Only for as long as there is one to wait for: signals that nobody reads would pile up in
        the bus. systemd sends them for a job whose creator is on the bus, subscribed or not.
        """
        if not self._listening:
            self.ask(message_bus.AddMatch(self._wanted), _REPLY_SECONDS)
            self._listening = True

    def listen_no_more(self) -> None:
        self.ask(message_bus.RemoveMatch(self._wanted), _REPLY_SECONDS)
        self._listening = False
        self._jobs.clear()

    def job_result(self, job: str, seconds: float) -> str:
        """Wait for the end of a job and return its result. Raises TimeoutError, OSError."""
        deadline = time.monotonic() + seconds
        while True:
            left = max(deadline - time.monotonic(), 0.0)
            _, path, _, result = self._bus.recv_until_filtered(self._jobs, timeout=left).body
            if path == job:
                return str(result)

    def close(self) -> None:
        self._bus.close()
