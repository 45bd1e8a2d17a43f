# SPDX-License-Identifier: Apache-2.0
"""The lab: a QEMU guest with several NUMA nodes, a real kernel, systemd and udev."""
