# SPDX-License-Identifier: Apache-2.0
"""Which holder is behind which rung of the ladder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoned.engine.dma.blocks import Blocks
from zoned.engine.dma.cma import Cma
from zoned.engine.dma.devdax import Devdax
from zoned.engine.dma.hugetlb import Hugetlb
from zoned.engine.dma.lowmem import Lowmem
from zoned.model.dma.rung import Rung

if TYPE_CHECKING:
    from collections.abc import Mapping

    from zoned.engine.dma.holder import Holder

HOLDERS: Mapping[Rung, Holder] = {
    Rung.DEVDAX: Devdax(),
    Rung.CMA: Cma(),
    Rung.LOWMEM: Lowmem(),
    Rung.BLOCKS: Blocks(),
    Rung.HUGETLB: Hugetlb(),
}
