#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# What starts, stops and reconnects cost on the socket.
exec python3 "$top_srcdir/tests/peers/counts.py"
