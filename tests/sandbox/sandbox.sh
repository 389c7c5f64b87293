#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# The tier "sandbox": the check program, by itself.
exec "$top_builddir/tests/sandbox/sandbox"
