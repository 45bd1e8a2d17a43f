# SPDX-License-Identifier: Apache-2.0
"""Derived zones: named shares of real memory, carved out of NUMA nodes while the machine runs."""

__version__ = "0.1.0"
