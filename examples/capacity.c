/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include <stdio.h>
#include <string.h>
#include <vhost/libvhost.h>

int main(int argc, char **argv)
{
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_mem *mem = NULL;
	struct libvhost_dev *dev = NULL;
	struct libvhost_dev_opts opts;
	struct libvhost_error err;
	unsigned char config[8];
	unsigned long long sectors = 0;
	char uri[128];
	int ret;

	snprintf(uri, sizeof(uri), "user:%s", argc > 1 ? argv[1] : "/tmp/vhost.sock");
	memset(&opts, 0, sizeof(opts)); /* zero means "default" in every struct of the library */
	opts.size = sizeof(opts);
	opts.virtio_id = 2; /* block */
	opts.num_queues = 1;
	opts.uri = uri;
	if (libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem))
		return 2;
	opts.mem = mem; /* no region yet: nothing runs before libvhost_dev_start() */
	ret = libvhost_dev_init(ctx, &opts, &dev);
	if (!ret)
		ret = libvhost_dev_get_config(dev, 0, config, sizeof(config), 0);
	if (!ret) {
		for (int i = 7; i >= 0; i--) /* capacity: little-endian, in sectors of 512 bytes */
			sectors = sectors << 8 | config[i];
		printf("capacity %llu bytes\n", sectors * 512);
	} else {
		err.size = sizeof(err);
		if (dev)
			libvhost_dev_error(dev, &err);
		else
			libvhost_ctx_error(ctx, &err);
		fprintf(stderr, "%s\n", err.text); /* names the message, the peer and what to do */
	}
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return ret ? 1 : 0;
}
