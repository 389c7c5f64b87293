/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Planted: options that claim more bytes than they have, so that the library itself reads past the end. */
#include <stdlib.h>
#include <vhost/libvhost.h>

int main(void)
{
	struct libvhost_ctx_opts *opts = calloc(1, sizeof(*opts));
	struct libvhost_ctx *ctx = NULL;

	if (!opts)
		return 0;
	opts->size = sizeof(*opts) + 64;
	if (!libvhost_ctx_new(opts, &ctx))
		libvhost_ctx_free(ctx);
	free(opts);
	return 0;
}
