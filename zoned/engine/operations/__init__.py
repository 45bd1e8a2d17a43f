# SPDX-License-Identifier: Apache-2.0
"""What jobs do: each operation checks what is asked, and then does it in steps that can be seen,
paused, cancelled, and taken up again after a restart.
"""
