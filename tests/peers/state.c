/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Device state between a back-end and a file. Usage: state save|load URI FILE */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/libvhost.h>

#define ROOM	(1u << 20)
#define WAIT_MS 60000

static struct libvhost_ctx *ctx;
static struct libvhost_dev *dev;

static int fail(const char *what, int rc)
{
	struct libvhost_error e = {.size = sizeof(e)};

	if (!dev || libvhost_dev_error(dev, &e))
		libvhost_ctx_error(ctx, &e);
	fprintf(stderr, "state: %s: %d %s\n", what, rc, rc == -ENOENT ? strerror(ENOENT) : e.text);
	return 1;
}

static int save(const char *path, const struct libvhost_call_opts *opts)
{
	static uint8_t buf[ROOM];
	size_t len = sizeof(buf);
	int rc = libvhost_dev_save_state(dev, buf, &len, opts);
	FILE *f;

	if (rc < 0)
		return fail("save", rc);
	f = fopen(path, "wb");
	if (!f || fwrite(buf, 1, len, f) != len || fclose(f))
		return fail(path, -errno);
	return 0;
}

static int load(const char *path, const struct libvhost_call_opts *opts)
{
	static uint8_t buf[ROOM];
	FILE *f = fopen(path, "rb");
	size_t len;
	int rc;

	if (!f)
		return fail(path, -errno);
	len = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	rc = libvhost_dev_load_state(dev, buf, len, opts);
	return rc < 0 ? fail("load", rc) : 0;
}

int main(int argc, char **argv)
{
	const struct libvhost_call_opts patient = {.size = sizeof(patient), .timeout_ms = WAIT_MS};
	struct libvhost_dev_opts o = {.size = sizeof(o), .num_queues = 1, .timeout_ms = WAIT_MS};
	struct libvhost_mem *mem = NULL;
	int rc;

	if (argc != 4 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem))
		return 2;
	o.uri = argv[2];
	o.mem = mem;
	rc = libvhost_dev_init(ctx, &o, &dev);
	if (rc < 0)
		rc = fail("init", rc);
	else
		rc = strcmp(argv[1], "save") ? load(argv[3], &patient) : save(argv[3], &patient);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return rc;
}
