# SPDX-License-Identifier: Apache-2.0
"""Devices that cannot reach all memory, what is wanted for them, and how it could be had."""
