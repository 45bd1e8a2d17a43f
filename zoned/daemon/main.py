# SPDX-License-Identifier: Apache-2.0
"""The command zoned: puts the parts together and runs the loop."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import sys
from pathlib import Path

import click

from zoned import __version__
from zoned.daemon.log import setup_logging
from zoned.errors import ZonedError

_log = logging.getLogger(__name__)


@click.group()
@click.version_option(__version__, prog_name="zoned")
def cli() -> None:
    """Keep derived zones: named shares of real memory, carved out of NUMA nodes.

    See zoned(8). The command for users is zonectl(1).
    """


_SOCKET = Path("/run/zoned/io.zoned")
_GROUP = "zone"
_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Read the policy from DIR alone, instead of /usr/lib/zoned, /run/zoned and /etc/zoned.",
)
_state = click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Keep zones and ledger in DIR alone, instead of /var/lib/zoned and /run/zoned.",
)


@cli.command()
@_config
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=_SOCKET,
    show_default=True,
    help="Listen here.",
)
@_state
@click.option(
    "--sysroot",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Look at a recorded machine below DIR (it holds sys/ and proc/). Nothing can be made.",
)
@click.option(
    "--group",
    default=_GROUP,
    show_default=True,
    help="Name of the group above all zones, so that two daemons keep out of each other's way.",
)
def run(
    config: Path | None, socket: Path, state: Path | None, sysroot: Path | None, group: str
) -> None:
    """Run the daemon in the foreground until SIGTERM. Zones outlive it; SIGHUP reloads."""
    from zoned.daemon.machine import Options
    from zoned.daemon.service import Service

    options = Options(config=config, socket=socket, state=state, sysroot=sysroot, group=group)
    if sysroot is None and os.geteuid() != 0:
        raise click.ClickException("zoned needs root (or --sysroot, to look at a recorded machine)")
    # systemd ends with SIGABRT what is stuck: the journal then has where each thread was.
    faulthandler.enable()
    asyncio.run(Service(options).run())


@cli.command()
@_config
@_state
@click.option(
    "--seconds",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="How long it may take; what is left then is left to the daemon.",
)
def early(config: Path | None, state: Path | None, seconds: float) -> None:
    """Reserve memory for devices and end, at boot, before drivers are loaded."""
    from zoned.daemon.early import run_early
    from zoned.daemon.machine import Options

    if os.geteuid() != 0:
        raise click.ClickException("zoned needs root")
    options = Options(config=config, socket=_SOCKET, state=state, sysroot=None, group=_GROUP)
    run_early(options, seconds)


def main() -> None:
    """Run the command; every failure is one line and a status."""
    setup_logging()
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ZonedError as error:
        _log.error("[%s] %s", error.code, error)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
