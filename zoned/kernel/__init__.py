# SPDX-License-Identifier: Apache-2.0
"""The only code that touches the machine; one file for each kernel interface."""
