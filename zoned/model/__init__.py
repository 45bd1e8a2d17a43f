# SPDX-License-Identifier: Apache-2.0
"""Values, no I/O: what zoned knows and what it wants."""
