# SPDX-License-Identifier: Apache-2.0
"""The command zonectl: puts the commands together, and turns every failure into one message."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from zoned import __version__
from zoned.cli import daemon, members, policy, topology, zones
from zoned.cli.talk import Session
from zoned.errors import ZonedError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    default=Path("/run/zoned/io.zoned"),
    envvar="ZONED_SOCKET",
    show_default=True,
    help="Where the daemon listens.",
)
@click.version_option(__version__, prog_name="zonectl")
@click.pass_context
def cli(context: click.Context, socket: Path) -> None:
    """Set memory of NUMA nodes aside for services, containers and machines: derived zones.

    \b
    zonectl topology                              what this machine has
    zonectl create db --size 64GiB --nodes 2      a zone of its own for a database
    zonectl run db -- postgres -D /srv/db         start it there
    zonectl attach db --pid 4711                  or move a running program in
    zonectl status                                is all well?

    zoned-zones(7) tells what a zone promises and what Linux cannot promise.
    """
    context.obj = Session(socket=socket)


for command in (
    daemon.status,
    topology.topology,
    zones.list_zones,
    zones.show,
    zones.create,
    zones.resize,
    zones.destroy,
    members.run,
    members.attach,
    members.detach,
    topology.blocks,
    policy.check,
    policy.schema,
    daemon.reload,
    daemon.reset,
    daemon.explain,
):
    cli.add_command(command)


def main() -> None:
    """Run zonectl. Exit status: see zonectl(1)."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except ZonedError as error:
        click.echo(f"zonectl: [{error.code}] {error.message}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
