# SPDX-License-Identifier: Apache-2.0
"""The asyncio service: socket, events, state, and the one loop that changes the machine."""
