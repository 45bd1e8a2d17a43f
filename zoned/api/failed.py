# SPDX-License-Identifier: Apache-2.0
"""The one error that every method of every interface may answer with."""

from asyncvarlink import TypedVarlinkErrorReply


class Failed(TypedVarlinkErrorReply, name="io.zoned.Failed"):
    """The request failed. `code` is stable; `zonectl explain CODE` tells more."""

    class Parameters:
        code: str
        message: str
        hint: str
