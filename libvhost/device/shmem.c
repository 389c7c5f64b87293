/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Windows of shared memory: address space that the host gives to a region of the device, into which the back-end maps
 * files. Everything it says is checked first; what is refused leaves the address space as it was. The library never
 * touches the bytes: a file that its owner cuts off later faults for whoever does (with REQUIRE_SEALS it is not
 * mapped).
 */
#include "device/device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_MAPS 1024u /* of a device, over all windows: each is an entry in the process's list of mappings */
#define MAX_ID	 255u
#define WRITABLE 1ull

struct lv_mapping {
	uint64_t offset, len;
};

struct lv_window {
	struct lv_window *next;
	uint32_t shmid;
	bool ours; /* reserved by the library */
	uint8_t *at;
	uint64_t size;
	struct lv_mapping *maps; /* sorted, apart from each other */
	uint32_t count, cap;
};

/* ---- placing ---- */

int lv_place_nothing(void *at, size_t len, int prot)
{
	void *p = mmap(at, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);

	return p == MAP_FAILED ? -errno : 0;
}

/* Somewhere else first: a file that cannot be mapped must not leave a hole that another thread's mapping falls into. */
int lv_place_file(void *at, size_t len, int prot, int fd, uint64_t offset)
{
	void *p = mmap(NULL, len, prot, MAP_SHARED, fd, (off_t)offset);
	int r;

	if (p == MAP_FAILED)
		return -errno;
	if (mremap(p, len, len, MREMAP_MAYMOVE | MREMAP_FIXED, at) != MAP_FAILED)
		return 0;
	r = -errno;
	munmap(p, len);
	return r;
}

bool lv_file_covers(int fd, uint64_t offset, uint64_t len)
{
	struct stat st;
	off_t size;

	if (fstat(fd, &st))
		return false;
	size = S_ISREG(st.st_mode) ? st.st_size : lseek(fd, 0, SEEK_END); /* a dma-buf knows its size this way */
	return size > 0 && offset <= (uint64_t)size && len <= (uint64_t)size - offset;
}

/* ---- windows ---- */

static struct lv_window *find(const struct libvhost_dev *dev, uint32_t shmid)
{
	struct lv_window *w = dev->share.windows;

	while (w && w->shmid != shmid)
		w = w->next;
	return w;
}

/* Index of the first mapping that ends behind offset. */
static uint32_t behind(const struct lv_window *w, uint64_t offset)
{
	uint32_t low = 0, high = w->count;

	while (low < high) {
		const uint32_t mid = low + (high - low) / 2;

		if (w->maps[mid].offset + w->maps[mid].len <= offset)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static int make_room(struct lv_window *w)
{
	const uint32_t cap = w->cap ? w->cap * 2 : 16;
	struct lv_mapping *maps;

	if (w->count < w->cap)
		return 0;
	maps = realloc(w->maps, cap * sizeof(*maps));
	if (!maps)
		return -ENOMEM;
	w->maps = maps;
	w->cap = cap;
	return 0;
}

static bool aligned(const struct libvhost_req_mmap *m)
{
	return !((m->shm_offset | m->len) % (uint64_t)sysconf(_SC_PAGESIZE));
}

static int check_file(const struct libvhost_dev *dev, const struct libvhost_req *req)
{
	const struct libvhost_req_mmap *m = &req->arg.mmap;
	const int mode = fcntl(req->fd, F_GETFL) & O_ACCMODE;

	if (mode == O_WRONLY || (m->flags & WRITABLE && mode != O_RDWR))
		return -EACCES;
	if (m->fd_offset % (uint64_t)sysconf(_SC_PAGESIZE) || !lv_file_covers(req->fd, m->fd_offset, m->len))
		return -EINVAL;
	if (lv_mem_wants_seals(dev->mem)) {
		const int seals = fcntl(req->fd, F_GET_SEALS);

		if (seals < 0 || !(seals & F_SEAL_SHRINK))
			return -EPERM;
	}
	return 0;
}

static int map(struct libvhost_dev *dev, struct lv_window *w, const struct libvhost_req *req)
{
	const struct libvhost_req_mmap *m = &req->arg.mmap;
	const int prot = PROT_READ | (m->flags & WRITABLE ? PROT_WRITE : 0);
	const uint32_t at = behind(w, m->shm_offset);
	int r;

	if (!aligned(m) || m->shm_offset > w->size || m->len > w->size - m->shm_offset)
		return -EINVAL;
	if (at < w->count && w->maps[at].offset < m->shm_offset + m->len)
		return -EEXIST;
	if (atomic_load(&dev->share.maps) >= MAX_MAPS)
		return -ENOSPC;
	r = check_file(dev, req);
	if (!r)
		r = make_room(w);
	if (!r)
		r = lv_place_file(w->at + m->shm_offset, m->len, prot, req->fd, m->fd_offset);
	if (r)
		return r;
	memmove(w->maps + at + 1, w->maps + at, (w->count - at) * sizeof(*w->maps));
	w->maps[at] = (struct lv_mapping){m->shm_offset, m->len};
	w->count++;
	atomic_fetch_add(&dev->share.maps, 1);
	return 0;
}

static int unmap(struct libvhost_dev *dev, struct lv_window *w, const struct libvhost_req_mmap *m)
{
	const uint32_t at = behind(w, m->shm_offset);
	int r;

	if (at == w->count || w->maps[at].offset != m->shm_offset || w->maps[at].len != m->len)
		return -EINVAL;
	r = lv_place_nothing(w->at + m->shm_offset, m->len, PROT_NONE);
	if (r)
		return r;
	w->count--;
	memmove(w->maps + at, w->maps + at + 1, (w->count - at) * sizeof(*w->maps));
	atomic_fetch_sub(&dev->share.maps, 1);
	return 0;
}

int lv_shmem_ask(struct lv_part *part, struct libvhost_req *req)
{
	struct lv_window *w = find(part->dev, req->arg.mmap.shmid);

	if (!w)
		return -ENOTSUP;
	return req->op == LIBVHOST_OP_BACKEND_SHMEM_MAP ? map(part->dev, w, req) : unmap(part->dev, w, &req->arg.mmap);
}

void lv_shmem_told(struct lv_part *part, const struct libvhost_req *req)
{
	const struct libvhost_req_mmap *m = &req->arg.mmap;
	const bool mapped = req->op == LIBVHOST_OP_BACKEND_SHMEM_MAP;
	const struct libvhost_event e = {
		.type = LIBVHOST_EVENT_SHMEM,
		.queue = LIBVHOST_NONE,
		.value = {m->shmid, m->shm_offset, m->len, mapped},
	};

	if (find(part->dev, m->shmid))
		lv_event_push(part->dev, &e);
}

uint32_t lv_shmem_maps(struct libvhost_dev *dev)
{
	return atomic_load(&dev->share.maps);
}

void lv_windows_empty(struct libvhost_dev *dev)
{
	for (struct lv_window *w = dev->share.windows; w; w = w->next) {
		if (w->count)
			lv_place_nothing(w->at, w->size, PROT_NONE);
		w->count = 0;
	}
	atomic_store(&dev->share.maps, 0);
}

static void free_window(struct lv_window *w)
{
	if (w->ours)
		munmap(w->at, w->size);
	free(w->maps);
	free(w);
}

void lv_windows_free(struct libvhost_dev *dev)
{
	struct lv_window *w, *next;

	lv_windows_empty(dev); /* the host's own address space stays reserved */
	for (w = dev->share.windows; w; w = next) {
		next = w->next;
		free_window(w);
	}
	dev->share.windows = NULL;
}

/* ---- the call ---- */

static int new_window(struct libvhost_dev *dev, uint32_t shmid, uint64_t address, uint64_t size)
{
	struct lv_window *w = calloc(1, sizeof(*w));
	int r = 0;

	if (!w)
		return -ENOMEM;
	*w = (struct lv_window){.shmid = shmid, .ours = !address, .at = (void *)(uintptr_t)address, .size = size};
	if (address) {
		r = lv_place_nothing(w->at, size, PROT_NONE);
	} else {
		w->at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		r = w->at == MAP_FAILED ? -errno : 0;
	}
	if (r) {
		free(w);
		return -ENOMEM;
	}
	w->next = dev->share.windows;
	dev->share.windows = w;
	return 0;
}

/* Lock held, nobody inside. */
static int give_window(struct libvhost_dev *dev, uint32_t shmid, uint64_t *address, uint64_t size)
{
	const struct lv_window *w = find(dev, shmid);
	int r;

	if (!(dev->rec->protocol_acked & 1ull << LIBVHOST_PROTOCOL_F_SHMEM_MAP))
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_UNSUPPORTED,
			       "shmem_window: shared memory is not negotiated; it takes LIBVHOST_DEV_USE_SHMEM and a "
			       "back-end that offers SHMEM_MAP");
	if (w && (w->size != size || (*address && *address != (uint64_t)(uintptr_t)w->at)))
		return lv_fail(&dev->err, -EEXIST, LIBVHOST_EK_ARGUMENT,
			       "shmem_window: region %u has one of %#llx bytes at %p", shmid,
			       (unsigned long long)w->size, (void *)w->at);
	r = w ? 0 : new_window(dev, shmid, *address, size);
	if (r)
		return lv_fail(&dev->err, r, LIBVHOST_EK_NOMEM,
			       "shmem_window: no address space for %#llx bytes of region %u", (unsigned long long)size,
			       shmid);
	*address = (uint64_t)(uintptr_t)find(dev, shmid)->at;
	return 0;
}

int libvhost_dev_shmem_window(struct libvhost_dev *dev, uint32_t shmid, uint64_t *address, uint64_t size)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	int r;

	if (!dev || !address)
		return -EINVAL;
	if (shmid > MAX_ID || !size || size > SIZE_MAX / 2 || (*address | size) % page || *address > UINTPTR_MAX - size)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "shmem_window: region %u, %#llx bytes at %#llx: regions are 0..255, size and address "
			       "multiples of %llu",
			       shmid, (unsigned long long)size, (unsigned long long)*address, (unsigned long long)page);
	r = lv_dev_enter(dev, LV_ANY_STATE & ~LV_STATE(CONNECTING), "shmem_window");
	if (r)
		return r;
	r = give_window(dev, shmid, address, size);
	pthread_mutex_unlock(&dev->lock);
	return r;
}
