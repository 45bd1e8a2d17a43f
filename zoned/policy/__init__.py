# SPDX-License-Identifier: Apache-2.0
"""YAML text to model values, with every mistake reported by file, line and field."""
