# SPDX-License-Identifier: Apache-2.0
"""Groups of processes with limits: one protocol, three implementations, chosen by looking."""
