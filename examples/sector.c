/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#define RAM 0x100000u /* guest-physical address of 64 KiB; 0 would be legal but some back-ends read it as "not set" */
#define NUM 64u

static int fail(struct libvhost_dev *dev)
{
	struct libvhost_error err;

	err.size = sizeof(err);
	libvhost_dev_error(dev, &err);
	fprintf(stderr, "%s\n", err.text);
	return 1;
}

static int read_sector(struct libvhost_ctx *ctx, struct libvhost_mem *mem, struct libvhost_dev *dev)
{
	struct libvhost_buf bufs[3] = {{RAM + 0x4000, 16, 0}, {RAM + 0x5000, 512, 0}, {RAM + 0x4100, 1, 0}};
	struct libvhost_queue queue;
	struct libvhost_vq_opts opts;
	struct libvhost_used used;
	struct libvhost_vq *vq;
	struct pollfd call;
	uint64_t features = 1ull << 32; /* VIRTIO_F_VERSION_1 */
	uint64_t count;
	uint32_t n;
	void *ram;

	memset(&queue, 0, sizeof(queue)); /* no descriptors given: the library makes kick and call */
	queue.size = sizeof(queue);
	queue.num = NUM;
	queue.desc = RAM;
	queue.avail = RAM + 0x1000;
	queue.used = RAM + 0x2000;
	if (libvhost_ack_features_ex(dev, &features, 1) || libvhost_dev_set_queue(dev, 0, &queue) ||
	    libvhost_dev_get_queue(dev, 0, &queue))
		return fail(dev);
	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.flags = LIBVHOST_VQ_HAS_KICK | LIBVHOST_VQ_HAS_CALL;
	opts.num = NUM;
	opts.features = features;
	opts.desc = queue.desc;
	opts.avail = queue.avail;
	opts.used = queue.used;
	opts.kick_fd = queue.kick_fd;
	opts.call_fd = queue.call_fd;
	if (libvhost_vq_new(ctx, mem, &opts, &vq))
		return 1;
	if (libvhost_dev_start(dev, NULL))
		return fail(dev);
	/* the request header is all zero: type 0 (read), sector 0 */
	if (libvhost_vq_add(vq, bufs, 1, 2, 0) || libvhost_vq_kick(vq) < 0)
		return 1;
	call.fd = queue.call_fd;
	call.events = POLLIN;
	for (;;) { /* a call is only a hint: it may come without a completion */
		n = 1;
		if (libvhost_vq_get_used(vq, &used, &n))
			return 1;
		if (n)
			break;
		if (poll(&call, 1, 5000) != 1 || read(call.fd, &count, sizeof(count)) < 0)
			return 1;
	}
	if (libvhost_mem_translate(mem, RAM, 0x10000, &ram, NULL))
		return 1;
	printf("status %d, first byte 0x%02x\n", ((unsigned char *)ram)[0x4100], ((unsigned char *)ram)[0x5000]);
	libvhost_vq_free(vq);
	return libvhost_dev_stop(dev, NULL) ? fail(dev) : 0;
}

int main(int argc, char **argv)
{
	struct libvhost_ctx *ctx = NULL;
	struct libvhost_mem *mem = NULL;
	struct libvhost_dev *dev = NULL;
	struct libvhost_dev_opts opts;
	char uri[128];
	int ret = 1;

	snprintf(uri, sizeof(uri), "user:%s", argc > 1 ? argv[1] : "/tmp/vhost.sock");
	memset(&opts, 0, sizeof(opts));
	opts.size = sizeof(opts);
	opts.virtio_id = 2;
	opts.num_queues = 1;
	opts.uri = uri;
	if (libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem))
		return 2;
	opts.mem = mem;
	if (!libvhost_mem_begin(mem) && !libvhost_mem_alloc(mem, RAM, 0x10000) && !libvhost_mem_commit(mem, 0, NULL) &&
	    !libvhost_dev_init(ctx, &opts, &dev))
		ret = read_sector(ctx, mem, dev);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return ret;
}
