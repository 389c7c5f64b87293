/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Results of a program that does all its tests in one run: TAP, with what the library says of what failed. */
#ifndef LV_TESTS_PEERS_RESULTS_H
#define LV_TESTS_PEERS_RESULTS_H

#include <stdio.h>
#include <vhost/libvhost.h>

static unsigned results, failed;

/* Who may know why: a device, guest memory, both or neither (NULL). */
static inline void result_of(int good, const char *what, struct libvhost_dev *dev, struct libvhost_mem *mem)
{
	struct libvhost_error e = {.size = sizeof(e)};

	printf("%sok %u - %s\n", good ? "" : "not ", ++results, what);
	failed += !good;
	if (!good && mem && !libvhost_mem_error(mem, &e))
		printf("# %s\n", e.text);
	if (!good && dev && !libvhost_dev_error(dev, &e))
		printf("# %s\n", e.text);
	fflush(stdout);
}

/* The exit status. */
static inline int results_end(void)
{
	printf("1..%u\n", results);
	return failed != 0;
}

#endif
