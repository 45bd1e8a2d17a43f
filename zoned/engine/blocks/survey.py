# SPDX-License-Identifier: Apache-2.0
"""Looking at many memory blocks: for each, whether it can go offline and what keeps it."""

from zoned.kernel.block_outlook import outlooks as survey

__all__ = ("survey",)
