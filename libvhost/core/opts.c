/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "core/opts.h"

#include <errno.h>
#include <string.h>

#define LV_OPTS_MAX 4096 /* no option struct will ever come near one page */

static int tail_is_zero(const unsigned char *bytes, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		if (bytes[i])
			return 0;
	return 1;
}

int lv_opts_read(struct lv_errslot *slot, void *dst, size_t known, size_t v1, const void *src, const char *what)
{
	uint32_t size;

	memset(dst, 0, known);
	if (!src)
		return 0;
	memcpy(&size, src, sizeof(size));
	if (size < v1)
		return lv_fail(
			slot, -EINVAL, LIBVHOST_EK_OPTS_TOO_SMALL,
			"%s: size is %u, the first version of this struct has %zu bytes; set size = sizeof(struct)",
			what, size, v1);
	if (size > LV_OPTS_MAX)
		return lv_fail(slot, -EINVAL, LIBVHOST_EK_OPTS_ABSURD,
			       "%s: size %u is absurd; set size = sizeof(struct)", what, size);
	if (!tail_is_zero(src, known, size))
		return lv_fail(slot, -E2BIG, LIBVHOST_EK_OPTS_UNKNOWN,
			       "%s: uses fields beyond byte %zu that libvhost %s does not know; update the library",
			       what, known, libvhost_version_string());
	memcpy(dst, src, size < known ? size : known);
	return 0;
}

int lv_out_write(void *caller, const void *ours, size_t known, size_t v1)
{
	uint32_t size;

	if (!caller)
		return -EINVAL;
	memcpy(&size, caller, sizeof(size));
	if (size < v1 || size > LV_OPTS_MAX)
		return -EINVAL;
	if (size > known)
		memset((unsigned char *)caller + known, 0, size - known);
	else
		known = size;
	memcpy(caller, ours, known);
	memcpy(caller, &size, sizeof(size));
	return 0;
}
