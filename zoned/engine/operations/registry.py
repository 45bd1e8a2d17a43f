# SPDX-License-Identifier: Apache-2.0
"""Which operation is behind which kind of job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.operations.attach import Attach
from zoned.engine.operations.destroy import Destroy
from zoned.engine.operations.detach import Detach
from zoned.engine.operations.migrate import Migrate
from zoned.engine.operations.move_zone import MoveZone
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.operations.context import Context, Operation


def operations(context: Context) -> Mapping[JobKind, Operation]:
    """Return every operation, for one machine."""
    return {
        JobKind.MIGRATE: Migrate(context=context),
        JobKind.MOVE: MoveZone(context=context),
        JobKind.ATTACH: Attach(context=context),
        JobKind.DETACH: Detach(context=context),
        JobKind.DESTROY: Destroy(context=context),
    }
