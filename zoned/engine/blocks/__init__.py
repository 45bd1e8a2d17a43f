# SPDX-License-Identifier: Apache-2.0
"""Memory blocks: which can be taken, taking them, and giving them back."""
