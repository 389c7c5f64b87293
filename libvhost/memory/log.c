/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The dirty log: its file, its mappings, and the bits. */
#include "memory/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/fence.h"
#include "core/wire.h"

#define PER_BYTE  (8ull * LV_LOG_PAGE)				 /* guest memory that one byte stands for */
#define FIRST_MAP (sizeof(void *) > 4 ? 1ull << 30 : 1ull << 22) /* address space only: 32 TiB of guest memory */

uint64_t lv_log_bytes(uint64_t end)
{
	const uint64_t bytes = end / PER_BYTE + (end % PER_BYTE != 0);

	return bytes ? (bytes + LV_LOG_PAGE - 1) / LV_LOG_PAGE * LV_LOG_PAGE : LV_LOG_PAGE;
}

/* The errors of lv_log_new(), whatever the system calls it. */
static int log_errno(int sys_errno)
{
	switch (sys_errno) {
	case EMFILE:
	case ENFILE:
		return -EMFILE;
	case ENOSPC:
	case EFBIG:
		return -ENOSPC;
	default:
		return -ENOMEM;
	}
}

/* Adds a mapping of at least bytes; a long one if there is address space. */
static int add_map(struct lv_log *log, int fd, uint64_t offset, uint64_t bytes, uint64_t wish)
{
	void *at = MAP_FAILED;

	if (bytes > SIZE_MAX / 2 || log->num_maps == LV_LOG_MAPS)
		return -ENOMEM;
	if (wish > bytes && wish <= SIZE_MAX / 2)
		at = mmap(NULL, (size_t)wish, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (at == MAP_FAILED) {
		wish = bytes;
		at = mmap(NULL, (size_t)wish, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	}
	if (at == MAP_FAILED)
		return log_errno(errno);
	log->maps[log->num_maps].at = at;
	log->maps[log->num_maps++].bytes = (size_t)wish;
	return 0;
}

/* At descriptor 3 or above, and sealed: it can grow, and never shrink. */
static int log_memfd(void)
{
	int low = memfd_create("libvhost-log", MFD_CLOEXEC | MFD_ALLOW_SEALING), fd, rc;

	if (low < 0)
		return log_errno(errno);
	fd = lv_fd_dup(low);
	lv_fd_close(low);
	if (fd < 0)
		return -EMFILE;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_SEAL) == 0)
		return fd;
	rc = log_errno(errno);
	lv_fd_close(fd);
	return rc;
}

static struct lv_log *log_alloc(int fd)
{
	struct lv_log *log = calloc(1, sizeof(*log));

	if (!log)
		return NULL;
	atomic_init(&log->refs, 1);
	log->fd = fd;
	return log;
}

int lv_log_new(uint64_t end, struct lv_log **ret)
{
	int rc, fd = log_memfd();
	struct lv_log *log = fd < 0 ? NULL : log_alloc(fd);

	if (!log) {
		lv_fd_close(fd);
		return fd < 0 ? fd : -ENOMEM;
	}
	rc = lv_log_grow(log, end);
	if (rc < 0)
		lv_log_put(log);
	else
		*ret = log;
	return rc;
}

int lv_log_grow(struct lv_log *log, uint64_t end)
{
	const uint64_t bytes = lv_log_bytes(end), have = atomic_load(&log->bytes);
	const uint32_t last = log->num_maps - 1;
	const bool fits = log->num_maps && log->maps[last].bytes >= bytes;
	uint64_t wish = log->num_maps ? log->maps[last].bytes * 2ull : FIRST_MAP;
	int rc = 0;

	if (bytes <= have)
		return 0;
	while (wish < bytes)
		wish *= 2;
	if (!fits)
		rc = add_map(log, log->fd, 0, bytes, wish);
	if (rc < 0)
		return rc;
	/* a new mapping of a file that then does not grow is harmless: nobody looks beyond bytes */
	if (ftruncate(log->fd, (off_t)bytes) < 0)
		return log_errno(errno);
	atomic_store(&log->bits, log->maps[log->num_maps - 1].at);
	atomic_store(&log->bytes, bytes); /* last: who sees it sees bits */
	return 0;
}

int lv_log_reserve(struct lv_log *log, uint64_t gpa, uint64_t size)
{
	const uint64_t at = gpa / PER_BYTE, end = size ? (gpa + (size - 1)) / PER_BYTE + 1 : at;
	int rc;

	if (end <= at)
		return 0;
	do
		rc = fallocate(log->fd, FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)(end - at));
	while (rc < 0 && errno == EINTR);
	return rc < 0 && errno != EOPNOTSUPP ? log_errno(errno) : 0;
}

/* Seals the file if its owner did not. 0 or -EPERM. */
static int hold_size(int fd)
{
	const int mode = fcntl(fd, F_GETFL), seals = fcntl(fd, F_GET_SEALS);

	if (mode < 0 || mode & O_PATH || (mode & O_ACCMODE) != O_RDWR)
		return -EPERM;
	if (seals >= 0 && seals & F_SEAL_SHRINK)
		return 0;
	return fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0 ? -EPERM : 0;
}

static int check_file(int fd, uint64_t offset, uint64_t bytes)
{
	struct stat st;
	uint64_t end;

	/* Whose file system answers: behind other files there may be a program that does not. And no huge pages, which
	 * a hole may take away for good, seal or not: a mark would be a SIGBUS. */
	if (!bytes || !lv_fd_in_memory(fd) || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    lv_fd_page(fd) > (size_t)sysconf(_SC_PAGESIZE))
		return -EINVAL;
	if (__builtin_add_overflow(offset, bytes, &end) || end > (uint64_t)st.st_size)
		return -EOVERFLOW;
	return 0;
}

int lv_log_import(int fd, uint64_t offset, uint64_t bytes, struct lv_log **ret)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), skip = offset % page;
	struct lv_log *log;
	int rc = check_file(fd, offset, bytes);

	if (rc == 0)
		rc = hold_size(fd);
	if (rc == 0)
		rc = check_file(fd, offset, bytes); /* once more: it could shrink until now */
	if (rc < 0)
		return rc;
	log = log_alloc(-1);
	rc = log ? add_map(log, fd, offset - skip, bytes + skip, 0) : -ENOMEM;
	if (rc < 0) {
		lv_log_put(log);
		return -ENOMEM;
	}
	atomic_init(&log->bits, (uint8_t *)log->maps[0].at + skip);
	atomic_init(&log->bytes, bytes);
	*ret = log;
	return 0;
}

int lv_log_adopt(int fd, struct lv_log **ret)
{
	struct lv_log *log;
	struct stat st;
	int rc = hold_size(fd), own;

	if (rc == 0 && (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= 0 || st.st_size % LV_LOG_PAGE))
		rc = -EINVAL;
	if (rc < 0)
		return rc;
	own = lv_fd_dup(fd);
	if (own < 0)
		return -EMFILE;
	log = log_alloc(own);
	if (!log) {
		lv_fd_close(own);
		return -ENOMEM;
	}
	rc = add_map(log, own, 0, (uint64_t)st.st_size, FIRST_MAP);
	if (rc < 0) {
		lv_log_put(log);
		return rc;
	}
	atomic_init(&log->bits, log->maps[0].at);
	atomic_init(&log->bytes, (uint64_t)st.st_size);
	*ret = log;
	return 0;
}

struct lv_log *lv_log_ref(struct lv_log *log)
{
	if (log)
		atomic_fetch_add(&log->refs, 1);
	return log;
}

void lv_log_put(struct lv_log *log)
{
	if (!log || atomic_fetch_sub(&log->refs, 1) != 1)
		return;
	for (uint32_t i = 0; i < log->num_maps; i++)
		munmap(log->maps[i].at, log->maps[i].bytes);
	lv_fd_close(log->fd);
	free(log);
}

/* ---- marking ---- */

void lv_log_fence(void)
{
	lv_fence();
}

static inline void set(uint8_t *at, unsigned mask)
{
	_Atomic uint8_t *byte = (void *)at;

	if ((atomic_load_explicit(byte, memory_order_relaxed) & mask) != mask)
		atomic_fetch_or_explicit(byte, (uint8_t)mask, memory_order_release);
}

/* Byte by byte: a front-end may place the log at any offset of its file, and bytes have no byte order. */
void lv_log_mark_fenced(struct lv_log *log, uint64_t gpa, uint64_t len)
{
	const uint64_t bytes = atomic_load_explicit(&log->bytes, memory_order_acquire);
	uint8_t *bits = atomic_load_explicit(&log->bits, memory_order_acquire);
	uint64_t first = gpa / LV_LOG_PAGE, last;

	if (!len)
		return;
	last = (len - 1 > UINT64_MAX - gpa ? UINT64_MAX : gpa + (len - 1)) / LV_LOG_PAGE;
	if (last / 8 >= bytes) {
		atomic_fetch_add_explicit(&log->outside, 1, memory_order_relaxed);
		if (first / 8 >= bytes)
			return;
		last = bytes * 8 - 1;
	}
	for (; first / 8 < last / 8; first = (first / 8 + 1) * 8)
		set(&bits[first / 8], 0xffu << first % 8 & 0xffu);
	set(&bits[first / 8], (0xffu << first % 8 & 0xffu) & 0xffu >> (7 - last % 8));
}

void lv_log_mark(struct lv_log *log, uint64_t gpa, uint64_t len)
{
	lv_log_fence();
	lv_log_mark_fenced(log, gpa, len);
}

bool lv_log_covers(const struct lv_log *log, uint64_t gpa, uint64_t len)
{
	return !len || (len - 1 <= UINT64_MAX - gpa && (gpa + (len - 1)) / PER_BYTE < atomic_load(&log->bytes));
}

/* ---- taking ---- */

/* The log is little-endian by nature: page 0 is bit 0 of byte 0. */
static inline uint64_t host_order(uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
	return word;
#else
	return __builtin_bswap64(word);
#endif
}

static inline uint64_t look(_Atomic uint64_t *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* The first word at or behind at that is not zero; most are. */
static uint64_t skip_clean(_Atomic uint64_t *words, uint64_t at, uint64_t end)
{
	for (; at + 8 <= end; at += 8)
		if (look(&words[at]) | look(&words[at + 1]) | look(&words[at + 2]) | look(&words[at + 3]) |
		    look(&words[at + 4]) | look(&words[at + 5]) | look(&words[at + 6]) | look(&words[at + 7]))
			break;
	while (at < end && !look(&words[at]))
		at++;
	return at;
}

/* Bits of word at that belong to [first, last]. */
static uint64_t wanted(uint64_t at, uint64_t first, uint64_t last)
{
	uint64_t mask = UINT64_MAX;

	if (at == first / 64)
		mask &= UINT64_MAX << first % 64;
	if (at == last / 64)
		mask &= UINT64_MAX >> (63 - last % 64);
	return mask;
}

bool lv_log_take(struct lv_log *log, uint64_t first, uint64_t count, lv_log_fn fn, void *arg)
{
	const uint64_t pages = atomic_load(&log->bytes) * 8;
	_Atomic uint64_t *words = (void *)atomic_load(&log->bits);
	uint64_t last, at, end, left = 0;

	if (first >= pages || !count)
		return true;
	last = count - 1 < pages - 1 - first ? first + (count - 1) : pages - 1;
	end = last / 64 + 1;
	for (at = first / 64; !left && (at = skip_clean(words, at, end)) < end; at++) {
		const uint64_t mask = host_order(wanted(at, first, last));
		uint64_t dirty;

		if (!(look(&words[at]) & mask))
			continue;
		if (mask == UINT64_MAX)
			dirty = atomic_exchange(&words[at], 0);
		else
			dirty = atomic_fetch_and(&words[at], ~mask) & mask;
		left = dirty ? fn(arg, at * 64, host_order(dirty)) : 0;
		if (left)
			atomic_fetch_or(&words[at], host_order(left));
	}
	lv_log_fence(); /* bits are gone before the caller reads a page */
	return !left;
}
