/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A file-system back-end opened and asked about its root directory, through the second queue of virtio-fs. Usage: fuse
 * URI FOLDER
 *   FOLDER  what it serves
 */
#include <linux/fuse.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "results.h"

#define FS	       26u
#define REQUESTS       1u /* queue 0 is for urgent ones */
#define RAM	       0x100000ull
#define ASKED	       0x80000ull
#define ANSWERED       0x90000ull
#define WAIT_MS	       60000u
#define OLD_INIT_BYTES (offsetof(struct fuse_init_in, flags) + sizeof(uint32_t)) /* before 7.36 */

static struct libvhost_ctx *ctx;
static struct libvhost_mem *mem;
static struct libvhost_dev *dev;
static struct libvhost_vq *vq;

static void result(int good, const char *what)
{
	result_of(good, what, dev, NULL);
}

static int open_device(const char *uri)
{
	const struct libvhost_dev_opts o = {
		.size = sizeof(o), .virtio_id = FS, .num_queues = 2, .timeout_ms = WAIT_MS, .uri = uri, .mem = mem};
	struct libvhost_vq_opts v = {.size = sizeof(v), .flags = LIBVHOST_VQ_HAS_KICK, .num = 64, .index = REQUESTS};
	struct libvhost_queue q = {.size = sizeof(q), .num = 64};

	v.features = 1ull << 32;
	if (libvhost_dev_init(ctx, &o, &dev) || libvhost_ack_features_ex(dev, &v.features, 1))
		return 0;
	for (uint32_t i = 0; i < 2; i++) {
		q.desc = i * 0x4000;
		q.avail = q.desc + 0x1000;
		q.used = q.desc + 0x2000;
		if (libvhost_dev_set_queue(dev, i, &q))
			return 0;
	}
	if (libvhost_dev_start(dev, NULL) || libvhost_dev_get_queue(dev, REQUESTS, &q))
		return 0;
	v.desc = q.desc;
	v.avail = q.avail;
	v.used = q.used;
	v.kick_fd = q.kick_fd;
	return !libvhost_vq_new(ctx, mem, &v, &vq);
}

/* The answer's bytes behind its header, or NULL. */
static const void *ask(uint32_t opcode, const void *body, uint32_t len, uint32_t answer_len)
{
	static uint64_t unique;
	const struct fuse_in_header in = {
		.len = (uint32_t)sizeof(in) + len, .opcode = opcode, .unique = ++unique, .nodeid = FUSE_ROOT_ID};
	const struct libvhost_buf b[4] = {{.gpa = ASKED, .len = sizeof(in)},
					  {.gpa = ASKED + sizeof(in), .len = len},
					  {.gpa = ANSWERED, .len = sizeof(struct fuse_out_header)},
					  {.gpa = ANSWERED + sizeof(struct fuse_out_header), .len = answer_len}};
	const struct fuse_out_header *out;
	struct libvhost_used used;
	void *asked, *answered;
	uint32_t n = 0;

	if (libvhost_mem_translate(mem, ASKED, 4096, &asked, NULL) ||
	    libvhost_mem_translate(mem, ANSWERED, 4096, &answered, NULL))
		return NULL;
	memcpy(asked, &in, sizeof(in));
	memcpy((char *)asked + sizeof(in), body, len);
	if (libvhost_vq_add(vq, b, 2, 2, unique) || libvhost_vq_kick(vq) < 0)
		return NULL;
	for (uint32_t i = 0; i < WAIT_MS && !n; i++, usleep(n ? 0 : 1000)) {
		n = 1;
		if (libvhost_vq_get_used(vq, &used, &n))
			return NULL;
	}
	out = answered;
	return n && used.token == unique && used.len == out->len && out->unique == unique && !out->error ? out + 1
													 : NULL;
}

static int init(void)
{
	const struct fuse_init_in in = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_readahead = 4096};
	const struct fuse_init_out *out = ask(FUSE_INIT, &in, OLD_INIT_BYTES, sizeof(*out));

	return out && out->major == FUSE_KERNEL_VERSION && out->max_write;
}

static int is_root(const char *folder)
{
	const struct fuse_getattr_in in = {0};
	const struct fuse_attr_out *out = ask(FUSE_GETATTR, &in, sizeof(in), sizeof(*out));
	struct stat st;

	return out && !stat(folder, &st) && out->attr.ino == st.st_ino && out->attr.mode == st.st_mode;
}

int main(int argc, char **argv)
{
	if (argc != 3 || libvhost_ctx_new(NULL, &ctx) || libvhost_mem_new(ctx, NULL, &mem) || libvhost_mem_begin(mem) ||
	    libvhost_mem_alloc(mem, 0, RAM) || libvhost_mem_commit(mem, 0, NULL))
		return 2;
	result(open_device(argv[1]), "the device runs");
	if (!failed) {
		result(init(), "the session opens");
		result(is_root(argv[2]), "the root directory is the folder");
		result(!libvhost_dev_stop(dev, NULL) && !libvhost_dev_start(dev, NULL) && is_root(argv[2]),
		       "and after stop and start");
	}
	libvhost_vq_free(vq);
	libvhost_dev_cleanup(dev);
	libvhost_mem_free(mem);
	libvhost_ctx_free(ctx);
	return results_end();
}
