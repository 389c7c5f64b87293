/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#ifndef VHOSTCTL_FAIL_NTH_H
#define VHOSTCTL_FAIL_NTH_H

#include "blk_driver.h"
#include "fault.h"

/* Lets each request of a small block device's life fail in turn and prints what became of the device. 0, or 1 when it
 * did not come back. */
int fail_nth_all(const struct blk_driver_opts *opts, const struct fault *how, bool json);

#endif
