# SPDX-License-Identifier: Apache-2.0
"""Memory for devices: reserving it, keeping it, handing it out."""
