# SPDX-License-Identifier: Apache-2.0
"""The fence around zones of backing `node`: everybody else stays off their nodes."""
