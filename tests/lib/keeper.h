/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* A handler that keeps what it takes until it may let go; while stuck it does not return when asked to drain. */
#ifndef LV_TESTS_KEEPER_H
#define LV_TESTS_KEEPER_H

#include <stdatomic.h>

#include "check.h"
#include "vhost/libvhost.h"

struct keeper {
	atomic_bool release, stuck;
	_Atomic uint32_t taken, again; /* requests; those that a start took from the one before */
	uint32_t heads[8], n;
};

/* Their argument is a struct keeper. */
extern const struct libvhost_backend_ops keeper_ops;
/* Until it has taken n requests. */
void keeper_await(struct keeper *k, uint32_t n);

#endif
