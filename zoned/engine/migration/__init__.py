# SPDX-License-Identifier: Apache-2.0
"""Moving pages of running processes: look, decide, move in small steps, look again."""
