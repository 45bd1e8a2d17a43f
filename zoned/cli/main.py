# SPDX-License-Identifier: Apache-2.0
"""The command zonectl: puts the commands together, and turns every failure into one message."""

from __future__ import annotations

import sys

import click

from zoned import __version__
from zoned.cli.on_demand import OnDemand
from zoned.cli.talk import Session
from zoned.errors import ZonedError

_COMMANDS = OnDemand(
    {
        "status": "zoned.cli.daemon:status",
        "topology": "zoned.cli.topology:topology",
        "list": "zoned.cli.zone_list:list_zones",
        "show": "zoned.cli.zones:show",
        "create": "zoned.cli.zones:create",
        "resize": "zoned.cli.zones:resize",
        "destroy": "zoned.cli.zones:destroy",
        "move": "zoned.cli.migrate:move",
        "run": "zoned.cli.members:run",
        "attach": "zoned.cli.members:attach",
        "detach": "zoned.cli.members:detach",
        "migrate": "zoned.cli.migrate:migrate",
        "jobs": "zoned.cli.jobs:jobs",
        "job": "zoned.cli.jobs:job",
        "base": "zoned.cli.base:base",
        "blocks": "zoned.cli.blocks:blocks",
        "dma": "zoned.cli.dma_commands:dma",
        "check": "zoned.cli.policy:check",
        "schema": "zoned.cli.policy:schema",
        "reload": "zoned.cli.daemon:reload",
        "reset": "zoned.cli.daemon:reset",
        "explain": "zoned.cli.daemon:explain",
    }
)


@click.group(commands=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--socket",
    type=click.Path(),
    default="/run/zoned/io.zoned",
    envvar="ZONED_SOCKET",
    show_default=True,
    help="Where the daemon listens.",
)
@click.version_option(__version__, prog_name="zonectl")
@click.pass_context
def cli(context: click.Context, socket: str) -> None:
    """Set memory of NUMA nodes aside for services, containers and machines: derived zones.

    \b
    zonectl topology                              what this machine has
    zonectl create db --size 64GiB --nodes 2      a zone of its own for a database
    zonectl run db -- postgres -D /srv/db         start it there
    zonectl attach db --pid 4711                  or move a running program in
    zonectl move db --nodes 3                     move the zone and its memory elsewhere
    zonectl status                                is all well?

    zoned-zones(7) tells what a zone promises and what Linux cannot promise.
    """
    context.obj = Session(socket=socket)


def main() -> None:
    """Run zonectl. Exit status: see zonectl(1)."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except ZonedError as error:
        click.echo(f"zonectl: [{error.code}] {error.message}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
