/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "memory/backing.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/wire.h"

#define REGION "memory region gpa %#" PRIx64 " size %#" PRIx64 ": "

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

static uint64_t system_page(void)
{
	return (uint64_t)sysconf(_SC_PAGESIZE);
}

/* 0 or the error; fd must be good for mmap as the region asks for it. */
static int check_mode(struct lv_errslot *slot, const struct libvhost_region *r)
{
	int mode = fcntl(r->fd, F_GETFL);

	if (mode < 0)
		return lv_fail_sys(slot, errno, REGION "descriptor %d is not open", r->gpa, r->size, r->fd);
	if (mode & O_PATH)
		return lv_fail(slot, -EBADF, LIBVHOST_EK_MEMORY,
			       REGION "descriptor %d was opened with O_PATH and cannot be mapped", r->gpa, r->size,
			       r->fd);
	mode &= O_ACCMODE;
	if (mode == O_RDWR || (mode == O_RDONLY && r->flags & LIBVHOST_REGION_READONLY))
		return 0;
	return lv_fail(slot, -EPERM, LIBVHOST_EK_MEMORY,
		       REGION "descriptor %d is not open for reading and writing; open it O_RDWR", r->gpa, r->size,
		       r->fd);
}

static int check_seals(struct lv_errslot *slot, const struct libvhost_region *r, bool required)
{
	int seals = fcntl(r->fd, F_GET_SEALS);

	if (seals < 0)
		seals = 0; /* files outside tmpfs and hugetlbfs know no seals */
	if (required && !(seals & F_SEAL_SHRINK))
		return lv_fail(slot, -EPERM, LIBVHOST_EK_MEMORY,
			       REGION "file can still shrink; seal the memfd with F_SEAL_SHRINK or do not set "
				      "LIBVHOST_MEM_REQUIRE_SEALS",
			       r->gpa, r->size);
	if (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE) && !(r->flags & LIBVHOST_REGION_READONLY))
		return lv_fail(slot, -EPERM, LIBVHOST_EK_MEMORY, REGION "file is sealed against writing (seals %#x)",
			       r->gpa, r->size, (unsigned)seals);
	return 0;
}

/*
 * mmap wants offsets on pages and rounds sizes up by itself, so that a region may end in the middle of its last page,
 * as those of the virtio-driver crate do. What lies behind its end is mapped and never translated to.
 */
static int check_pages(struct lv_errslot *slot, const struct libvhost_region *r)
{
	const uint64_t page = lv_fd_page(r->fd);

	if (page > system_page() && (r->mmap_offset | r->size) & (page - 1))
		return lv_fail(slot, -EINVAL, LIBVHOST_EK_MEMORY,
			       REGION "size and file offset %#" PRIx64
				      " must be multiples of the file's huge pages of %" PRIu64 " bytes",
			       r->gpa, r->size, r->mmap_offset, page);
	if (r->mmap_offset & (system_page() - 1))
		return lv_fail(slot, -EINVAL, LIBVHOST_EK_MEMORY,
			       REGION "file offset %#" PRIx64 " must be a multiple of the page size %" PRIu64, r->gpa,
			       r->size, r->mmap_offset, system_page());
	return 0;
}

static int check_bounds(struct lv_errslot *slot, const struct libvhost_region *r, const struct stat *st)
{
	uint64_t end;
	int rc;

	if (__builtin_add_overflow(r->mmap_offset, r->size, &end) || end > INT64_MAX || r->size > SIZE_MAX / 2)
		return lv_fail(slot, -EOVERFLOW, LIBVHOST_EK_MEMORY, REGION "file offset %#" PRIx64 " + size overflows",
			       r->gpa, r->size, r->mmap_offset);
	rc = check_pages(slot, r);
	if (rc < 0)
		return rc;
	if (end > (uint64_t)st->st_size)
		return lv_fail(slot, -EOVERFLOW, LIBVHOST_EK_MEMORY,
			       REGION "needs the file up to %#" PRIx64 " but it ends at %#" PRIx64, r->gpa, r->size,
			       end, (uint64_t)st->st_size);
	return 0;
}

int lv_backing_check(struct lv_errslot *slot, const struct libvhost_region *r, bool require_seals,
		     struct lv_extent *extent)
{
	struct stat st;
	int rc = check_mode(slot, r);

	if (rc < 0)
		return rc;
	/* Before fstat, which a file system that is a program may keep waiting. */
	if (require_seals && !lv_fd_in_memory(r->fd))
		return lv_fail(slot, -EPERM, LIBVHOST_EK_MEMORY,
			       REGION "descriptor %d is neither a memfd nor a file of tmpfs or hugetlbfs: it knows no "
				      "seals",
			       r->gpa, r->size, r->fd);
	if (fstat(r->fd, &st) < 0)
		return lv_fail_sys(slot, errno, REGION "fstat of descriptor %d", r->gpa, r->size, r->fd);
	/* Sockets, pipes and the like cannot be mapped; /dev/zero can, but shares nothing with anybody. */
	if (!S_ISREG(st.st_mode))
		return lv_fail(slot, -EINVAL, LIBVHOST_EK_MEMORY,
			       REGION "descriptor %d is not a regular file or memfd (mode %#o)", r->gpa, r->size, r->fd,
			       (unsigned)st.st_mode);
	rc = check_seals(slot, r, require_seals);
	if (rc < 0)
		return rc;
	/* After the seals: a size read before them could shrink in between. */
	if (fstat(r->fd, &st) < 0)
		return lv_fail_sys(slot, errno, REGION "fstat of descriptor %d", r->gpa, r->size, r->fd);
	rc = check_bounds(slot, r, &st);
	if (rc < 0)
		return rc;
	*extent = (struct lv_extent){
		.dev = st.st_dev,
		.ino = st.st_ino,
		.offset = r->mmap_offset,
		.size = r->size,
		.readonly = r->flags & LIBVHOST_REGION_READONLY,
	};
	return 0;
}

/* The closed list of libvhost_mem_add(): what mmap says beyond it. */
static int map_errno(int sys_errno)
{
	switch (sys_errno) {
	case EACCES:
	case EPERM:
		return EPERM;
	case ENODEV:
		return EINVAL;
	case EOVERFLOW:
		return EOVERFLOW;
	default:
		return ENOMEM; /* EAGAIN: locked memory; hugetlb pool empty */
	}
}

/* Maps fd, which the backing owns from now on, also when it fails. */
static int map_owned(struct lv_errslot *slot, int fd, const struct lv_extent *extent, bool guard,
		     struct lv_backing **ret)
{
	struct lv_backing *b = calloc(1, sizeof(*b));
	int prot = extent->readonly ? PROT_READ : PROT_READ | PROT_WRITE, rc;
	void *hva;

	if (!b) {
		lv_fd_close(fd);
		return lv_fail_sys(slot, ENOMEM, "memory region size %#" PRIx64 ": no memory", extent->size);
	}
	/* Without MAP_NORESERVE an empty hugetlb pool fails here and not with SIGBUS at the first touch. */
	hva = mmap(NULL, (size_t)extent->size, prot, MAP_SHARED, fd, (off_t)extent->offset);
	if (hva == MAP_FAILED) {
		rc = errno;
		lv_fd_close(fd);
		free(b);
		return lv_fail_sys(slot, map_errno(rc), "mmap of %#" PRIx64 " bytes at file offset %#" PRIx64 ": %s",
				   extent->size, extent->offset, lv_errno_name(rc));
	}
	atomic_init(&b->refs, 1);
	b->extent = *extent;
	b->hva = hva;
	b->fd = fd;
	b->mapped = true;
	if (guard)
		b->guarded = lv_sigbus_guard(hva, (size_t)extent->size, lv_fd_page(fd));
	if (guard && !b->guarded) {
		lv_backing_put(b);
		return lv_fail_sys(slot, ENOMEM, "memory region size %#" PRIx64 ": no memory to guard it",
				   extent->size);
	}
	*ret = b;
	return 0;
}

static int dup_fd(struct lv_errslot *slot, int fd)
{
	int copy = lv_fd_dup(fd);

	/* EINVAL means that the limit is below 3 */
	return copy >= 0 ? copy
			 : lv_fail_sys(slot, copy == -EINVAL ? EMFILE : -copy,
				       "duplicating memory descriptor %d; raise RLIMIT_NOFILE", fd);
}

int lv_backing_map(struct lv_errslot *slot, int fd, const struct lv_extent *extent, uint8_t *hva, bool guard,
		   struct lv_backing **ret)
{
	struct lv_backing *b;

	fd = dup_fd(slot, fd);
	if (fd < 0)
		return fd;
	if (!hva)
		return map_owned(slot, fd, extent, guard, ret);
	b = calloc(1, sizeof(*b));
	if (!b) {
		lv_fd_close(fd);
		return lv_fail_sys(slot, ENOMEM, "memory region size %#" PRIx64 ": no memory", extent->size);
	}
	atomic_init(&b->refs, 1);
	b->extent = *extent;
	b->hva = hva;
	b->fd = fd;
	*ret = b;
	return 0;
}

/* A memfd of this size, sealed, at descriptor 3 or above; negative errno. */
static int sealed_memfd(uint64_t size)
{
	int low = memfd_create("libvhost-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING), fd, rc = 0;

	if (low < 0)
		return -errno;
	fd = lv_fd_dup(low);
	lv_fd_close(low);
	if (fd < 0)
		return fd == -EINVAL ? -EMFILE : fd;
	if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		rc = errno == EFBIG || errno == ENOSPC ? -ENOMEM : -errno;
	if (rc < 0)
		lv_fd_close(fd);
	return rc < 0 ? rc : fd;
}

int lv_backing_create(struct lv_errslot *slot, uint64_t size, struct lv_backing **ret)
{
	struct lv_extent extent = {.size = size};
	struct stat st;
	int fd;

	if (size & (system_page() - 1))
		return lv_fail(slot, -EINVAL, LIBVHOST_EK_MEMORY,
			       "new memory of %#" PRIx64 " bytes: size must be a multiple of the page size %" PRIu64,
			       size, system_page());
	if (size > SIZE_MAX / 2)
		return lv_fail_sys(slot, ENOMEM, "new memory of %#" PRIx64 " bytes", size);
	fd = sealed_memfd(size);
	if (fd < 0)
		return lv_fail_sys(slot, -fd, "new memory of %#" PRIx64 " bytes: sealed memfd", size);
	if (fstat(fd, &st) == 0) {
		extent.dev = st.st_dev;
		extent.ino = st.st_ino;
	}
	return map_owned(slot, fd, &extent, false, ret); /* nobody can cut it off */
}

int lv_backing_absent(const struct lv_extent *extent, struct lv_backing **ret)
{
	struct lv_backing *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	atomic_init(&b->refs, 1);
	b->extent = *extent;
	b->fd = -1;
	*ret = b;
	return 0;
}

bool lv_extent_equal(const struct lv_extent *a, const struct lv_extent *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->offset == b->offset && a->size == b->size &&
	       a->readonly == b->readonly;
}

struct lv_backing *lv_backing_ref(struct lv_backing *backing)
{
	if (backing)
		atomic_fetch_add(&backing->refs, 1);
	return backing;
}

void lv_backing_put(struct lv_backing *backing)
{
	if (!backing || atomic_fetch_sub(&backing->refs, 1) != 1)
		return;
	lv_sigbus_release(backing->guarded);
	if (backing->mapped)
		munmap(backing->hva, (size_t)backing->extent.size);
	lv_fd_close(backing->fd);
	free(backing);
}
