# SPDX-License-Identifier: Apache-2.0
"""The varlink interface, shared by daemon and client."""
