# SPDX-License-Identifier: Apache-2.0
"""Which operation is behind which kind of job."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.operations.attach import Attach
from zoned.engine.operations.base_add import BaseAdd
from zoned.engine.operations.base_remove import BaseRemove
from zoned.engine.operations.create import Create
from zoned.engine.operations.destroy import Destroy
from zoned.engine.operations.detach import Detach
from zoned.engine.operations.dma_release import DmaRelease
from zoned.engine.operations.dma_reserve import DmaReserve
from zoned.engine.operations.mend import Fill, GiveBack
from zoned.engine.operations.migrate import Migrate
from zoned.engine.operations.move_zone import MoveZone
from zoned.engine.operations.named_blocks import Offline, Online
from zoned.engine.operations.park import Park, Unpark
from zoned.engine.operations.resize import Resize
from zoned.model.job import JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.operations.context import Context, Operation, Surveyor


def surveyors(context: Context) -> Mapping[JobKind, Surveyor]:
    """Return the operations that can look ahead, for one machine."""
    return {
        JobKind.MIGRATE: Migrate(context=context),
        JobKind.MOVE: MoveZone(context=context),
        JobKind.ATTACH: Attach(context=context),
    }


def operations(context: Context) -> Mapping[JobKind, Operation]:
    """Return every operation, for one machine."""
    return {
        **surveyors(context),
        JobKind.DETACH: Detach(context=context),
        JobKind.DESTROY: Destroy(context=context),
        JobKind.CREATE: Create(context=context),
        JobKind.RESIZE: Resize(context=context),
        JobKind.FILL: Fill(context=context),
        JobKind.PARK: Park(context=context),
        JobKind.UNPARK: Unpark(context=context),
        JobKind.OFFLINE: Offline(context=context),
        JobKind.ONLINE: Online(context=context),
        JobKind.GIVE_BACK: GiveBack(context=context),
        JobKind.BASE_ADD: BaseAdd(context=context),
        JobKind.BASE_REMOVE: BaseRemove(context=context),
        JobKind.DMA_RESERVE: DmaReserve(context=context),
        JobKind.DMA_RELEASE: DmaRelease(context=context),
    }
