#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
"""A device's life, and a front-end's whole conversation with our back-end, with every allocation, descriptor and mapping
failing in turn; what fails stands in tests/lib/faults.c."""
import os

program = os.path.join(os.environ["top_builddir"], "tests/hostile/faults")
os.execv(program, [program])
