/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Planted: contexts that nobody frees. */
#include <vhost/libvhost.h>

int main(void)
{
	struct libvhost_ctx *ctx = NULL;

	/* several, because a register may still hold the last one when the leak check looks */
	for (int i = 0; i < 8; i++)
		if (libvhost_ctx_new(NULL, &ctx))
			return 0;
	return 0;
}
