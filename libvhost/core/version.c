/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include <string.h>
#include <vhost/common.h>

#define STRINGIFY(x) #x
#define TEXT(x)	     STRINGIFY(x)

uint32_t libvhost_version(void)
{
	return LIBVHOST_VERSION_NUMBER;
}

const char *libvhost_version_string(void)
{
	return TEXT(LIBVHOST_VERSION_MAJOR) "." TEXT(LIBVHOST_VERSION_MINOR) "." TEXT(LIBVHOST_VERSION_MICRO);
}

/* Only what works is listed; a name moves in with the issue that makes it work. */
int libvhost_has(const char *capability)
{
	static const char *const present[] = {"vhost-user", "split", "packed", "inproc", "backend", "sandbox"};

	for (size_t i = 0; capability && i < sizeof(present) / sizeof(*present); i++)
		if (!strcmp(capability, present[i]))
			return 1;
	return 0;
}
