# SPDX-License-Identifier: Apache-2.0
"""Programs that run in the guest, with its own python3 and nothing but the standard library."""
