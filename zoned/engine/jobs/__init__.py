# SPDX-License-Identifier: Apache-2.0
"""Jobs: work that is watched, paused, cancelled, and taken up again after a restart."""
