# SPDX-License-Identifier: Apache-2.0
"""Base zones that come and go."""
