# SPDX-License-Identifier: Apache-2.0
"""Observe, derive, plan, execute, verify: from what is wanted to what the kernel does."""
