# SPDX-License-Identifier: Apache-2.0
"""The benchmark: what zoned costs, measured against a peer in the same guest."""
