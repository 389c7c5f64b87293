/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Shorthands of the memory tests. */
#ifndef LV_TESTS_MEMHELP_H
#define LV_TESTS_MEMHELP_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vhost/libvhost.h>

#include "check.h"
#include "memory/mem.h"

#define PAGE 0x1000ull

struct guest {
	struct libvhost_ctx *ctx;
	struct libvhost_mem *mem;
};

static inline struct guest guest_new_ctx(uint32_t flags, uint32_t ctx_flags)
{
	const struct libvhost_ctx_opts c = {.size = sizeof(c), .flags = ctx_flags};
	const struct libvhost_mem_opts o = {.size = sizeof(o), .flags = flags};
	struct guest g = {0};

	CHECK_EQ(libvhost_ctx_new(&c, &g.ctx), 0);
	CHECK_EQ(libvhost_mem_new(g.ctx, &o, &g.mem), 0);
	return g;
}

static inline struct guest guest_new(uint32_t flags)
{
	return guest_new_ctx(flags, 0);
}

static inline void guest_free(struct guest *g)
{
	libvhost_mem_free(g->mem);
	libvhost_ctx_free(g->ctx);
}

static inline int memfd(uint64_t size, unsigned seals)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	CHECK(fd >= 0);
	CHECK_EQ(ftruncate(fd, (off_t)size), 0);
	if (seals)
		CHECK_EQ(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

/* A new file of size bytes in dir, without a name any more; -1 = that cannot be. */
static inline int nameless_file(const char *dir, uint64_t size)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "%s/libvhost-XXXXXX", dir);
	fd = mkostemp(path, O_CLOEXEC);
	if (fd >= 0) {
		CHECK_EQ(unlink(path), 0);
		CHECK_EQ(ftruncate(fd, (off_t)size), 0);
	}
	return fd;
}

/* One that does not lie in memory. */
static inline int disk_file(uint64_t size)
{
	static const char *const dirs[] = {".", "/var/tmp", "/tmp"};

	for (unsigned i = 0; i < 3; i++) {
		const int fd = nameless_file(dirs[i], size);

		if (fd >= 0 && fcntl(fd, F_GET_SEALS) < 0)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return open("/proc/self/mem", O_RDWR | O_CLOEXEC); /* all is tmpfs here */
}

static inline struct libvhost_region region(int fd, uint64_t gpa, uint64_t size, uint64_t offset)
{
	return (struct libvhost_region){
		.gpa = gpa, .size = size, .mmap_offset = offset, .fd = fd, .flags = LIBVHOST_REGION_HAS_FD};
}

/* One transaction with one added region. */
static inline void put(struct guest *g, struct libvhost_region r)
{
	CHECK_EQ(libvhost_mem_begin(g->mem), 0);
	CHECK_EQ(libvhost_mem_add(g->mem, &r), 0);
	CHECK_EQ(libvhost_mem_commit(g->mem, 0, NULL), 0);
}

/* What the next add says; the transaction stays as it was. */
static inline int try_add(struct guest *g, struct libvhost_region r)
{
	int rc = libvhost_mem_add(g->mem, &r);

	if (rc == 0)
		CHECK_EQ(libvhost_mem_remove(g->mem, r.gpa, r.size), 0);
	return rc;
}

static inline struct libvhost_error last_error(struct guest *g)
{
	struct libvhost_error e = {.size = sizeof(e)};

	CHECK_EQ(libvhost_mem_error(g->mem, &e), 0);
	return e;
}

static inline void *at(struct guest *g, uint64_t gpa)
{
	void *hva = NULL;

	return libvhost_mem_translate(g->mem, gpa, 1, &hva, NULL) == 0 ? hva : NULL;
}

#endif
