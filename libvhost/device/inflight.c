/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The inflight region: whose it is, what stands in it, and the caller's view of it. */
#include "device/inflight.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/inflight.h>
#include "core/sigbus.h"
#include "core/wire.h"
#include "device/device.h"
#include "device/features.h"
#include "vring/vring.h"

#define DESC_AVAIL	  0x80u /* virtio 1.3, 2.8.1: flags of a packed descriptor */
#define DESC_USED	  0x8000u
#define PACKED_DESC	  16u
#define PACKED_DESC_FLAGS 14u
#define CHUNK		  4096u

int lv_inflight_check_fd(int fd, uint64_t *file)
{
	const int mode = fcntl(fd, F_GETFL);
	struct stat st;

	if (mode < 0)
		return -EBADF;
	if ((mode & (O_ACCMODE | O_PATH)) != O_RDWR || !lv_fd_in_memory(fd) || fstat(fd, &st))
		return -EINVAL;
	*file = (uint64_t)st.st_size;
	return 0;
}

/* ---- whose it is ---- */

void lv_inflight_collect(struct libvhost_dev *dev, const struct lv_program *prog)
{
	for (uint32_t i = 0; i < prog->count; i++) {
		struct libvhost_req *req = &prog->reqs[i];

		if (!(req->out_flags & LIBVHOST_REQ_OUT_FD))
			continue;
		req->out_flags &= ~LIBVHOST_REQ_OUT_FD;
		lv_fd_close(dev->op.inflight_fd);
		dev->op.inflight_fd = req->out_fd;
		if (lv_inflight_check_fd(req->out_fd, &dev->op.inflight_file))
			dev->op.inflight_file = 0;
	}
}

/* Puts fd, owned from now on, in the place of the present file. */
static void replace_fd(struct libvhost_dev *dev, int fd)
{
	struct lv_inflight_file *own = &dev->inflight;

	lv_sigbus_release(own->guarded);
	if (own->map)
		munmap(own->map, own->map_len);
	lv_fd_close(own->fd);
	*own = (struct lv_inflight_file){.fd = fd};
}

void lv_inflight_adopt(struct libvhost_dev *dev)
{
	if (dev->op.inflight_fd >= 0 || !(dev->rec->flags & LV_RF_INFLIGHT))
		replace_fd(dev, dev->op.inflight_fd);
	dev->op.inflight_fd = -1;
}

void lv_inflight_drop(struct libvhost_dev *dev)
{
	pthread_mutex_lock(&dev->lock);
	dev->rec->flags &= ~(uint32_t)(LV_RF_INFLIGHT | LV_RF_INFLIGHT_PACKED);
	dev->rec->inflight_bytes = dev->rec->inflight_offset = 0;
	dev->rec->inflight_queues = dev->rec->inflight_num = 0;
	replace_fd(dev, -1);
	pthread_mutex_unlock(&dev->lock);
}

uint32_t lv_inflight_guarantee(const struct lv_record *rec)
{
	if (rec->flags & LV_RF_INFLIGHT && rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD))
		return LIBVHOST_GUARANTEE_INFLIGHT;
	return rec->acked[0] & LV_BIT(LV_F_IN_ORDER) ? LIBVHOST_GUARANTEE_IN_ORDER : LIBVHOST_GUARANTEE_NONE;
}

/* ---- what stands in it ---- */

static bool is_packed(const struct lv_record *rec)
{
	return rec->flags & LV_RF_INFLIGHT_PACKED;
}

static uint64_t queue_at(const struct lv_record *rec, uint32_t queue)
{
	return rec->inflight_offset + queue * lv_inflight_queue_bytes(rec->inflight_num, is_packed(rec));
}

static bool read_at(const struct libvhost_dev *dev, uint64_t at, void *buf, size_t len)
{
	return pread(dev->inflight.fd, buf, len, (off_t)at) == (ssize_t)len;
}

/* Both layouts begin an entry with its mark. */
static int queue_in_flight(const struct libvhost_dev *dev, uint32_t queue)
{
	const size_t entry =
		is_packed(dev->rec) ? sizeof(struct lv_inflight_packed_desc) : sizeof(struct lv_inflight_split_desc);
	uint64_t at = queue_at(dev->rec, queue);
	struct lv_inflight_split head;
	uint8_t chunk[CHUNK];
	uint32_t left = dev->rec->inflight_num;

	if (!read_at(dev, at, &head, sizeof(head)))
		return -EIO;
	if (!head.version)
		return 0;
	at += is_packed(dev->rec) ? sizeof(struct lv_inflight_packed) : sizeof(struct lv_inflight_split);
	while (left) {
		const uint32_t n = left < CHUNK / entry ? left : (uint32_t)(CHUNK / entry);

		if (!read_at(dev, at, chunk, n * entry))
			return -EIO;
		for (uint32_t i = 0; i < n; i++)
			if (chunk[i * entry])
				return 1;
		at += n * entry;
		left -= n;
	}
	return 0;
}

int lv_inflight_unreadable(struct libvhost_dev *dev, const char *call)
{
	return lv_fail(&dev->err, -EIO, LIBVHOST_EK_SYSTEM,
		       "%s: the inflight region cannot be read or written any more, its file was cut short: let it go "
		       "with libvhost_dev_free_inflight()",
		       call);
}

int lv_inflight_before_start(struct libvhost_dev *dev)
{
	const struct lv_inflight_shape need = lv_inflight_shape(dev->op.work);
	int busy = 0;

	if (!(dev->op.work->flags & LV_RF_INFLIGHT) || lv_inflight_fits(dev->op.work, &need))
		return 0;
	for (uint32_t q = 0; q < dev->rec->inflight_queues && !busy; q++)
		busy = queue_in_flight(dev, q);
	if (busy < 0)
		return lv_inflight_unreadable(dev, "start");
	if (busy)
		return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE,
			       "start: requests are in flight in the inflight region, which was made for %u queues of "
			       "%u entries and not for %u %s ones of %u; reset_inflight or free_inflight gives them up",
			       dev->rec->inflight_queues, dev->rec->inflight_num, need.queues,
			       need.packed ? "packed" : "split", need.num);
	dev->op.work->flags &= ~(uint32_t)(LV_RF_INFLIGHT | LV_RF_INFLIGHT_PACKED);
	return 0;
}

/* vhost-user specification, "Inflight I/O tracking", "When reconnecting": an update of the used ring that had begun
 * counts once its first descriptor does not look available any more. */
static bool was_published(const struct lv_snapshot *mem, const struct lv_record_queue *q, uint16_t idx, bool wrap)
{
	const uint64_t gpa = q->desc + PACKED_DESC * (uint64_t)idx + PACKED_DESC_FLAGS;
	struct lv_tlb tlb = {0};
	const uint16_t *at = lv_translate(mem, &tlb, gpa, sizeof(*at));
	uint16_t flags;

	if (!at)
		return false;
	flags = __atomic_load_n(at, __ATOMIC_ACQUIRE);
	return (flags & (DESC_AVAIL | DESC_USED)) != (wrap ? DESC_AVAIL : DESC_USED);
}

bool lv_inflight_packed_base(struct libvhost_dev *dev, uint32_t queue, uint32_t *base)
{
	const struct lv_record *rec = dev->rec;
	const struct lv_record_queue *q = &rec->queue[queue];
	struct lv_inflight_packed h;
	struct lv_snapshot *mem;
	uint32_t half;

	if (!(rec->flags & LV_RF_INFLIGHT) || !is_packed(rec) || queue >= rec->inflight_queues ||
	    !read_at(dev, queue_at(rec, queue), &h, sizeof(h)))
		return false;
	if (h.version != 1 || h.used_idx >= q->num || h.old_used_idx >= q->num ||
	    (h.used_wrap_counter | h.old_used_wrap_counter) > 1)
		return false;
	half = h.old_used_idx | (uint32_t)h.old_used_wrap_counter << 15;
	if (h.used_idx != h.old_used_idx || h.used_wrap_counter != h.old_used_wrap_counter) {
		mem = lv_mem_snapshot(dev->mem);
		if (was_published(mem, q, h.old_used_idx, h.old_used_wrap_counter))
			half = h.used_idx | (uint32_t)h.used_wrap_counter << 15;
		lv_snapshot_put(mem);
	}
	*base = half | half << 16;
	return true;
}

void lv_inflight_rebase(struct libvhost_dev *dev)
{
	struct lv_record *after = dev->op.work;
	struct lv_snapshot *mem;
	uint16_t idx;

	if (!(dev->rec->flags & LV_RF_INFLIGHT) ||
	    !(dev->rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_GET_VRING_BASE_INFLIGHT)))
		return;
	mem = lv_mem_snapshot(dev->mem);
	for (uint32_t i = 0; i < after->num_queues; i++) {
		struct lv_record_queue *q = &after->queue[i];

		if (!(dev->rec->queue[i].flags & LV_RQ_RUNNING) || q->flags & LV_RQ_RUNNING)
			continue;
		if (lv_queue_packed(dev->rec))
			lv_inflight_packed_base(dev, i, &q->base);
		else if (!lv_split_used_idx(mem, q->used, &idx))
			q->base = idx;
	}
	lv_snapshot_put(mem);
}

static bool any_runs(const struct lv_record *rec)
{
	for (uint32_t i = 0; i < rec->num_queues; i++)
		if (rec->queue[i].flags & LV_RQ_RUNNING)
			return true;
	return false;
}

void lv_inflight_keep(struct libvhost_dev *dev)
{
	const struct lv_record *work = dev->op.work;
	const struct lv_inflight_shape shape = {work->inflight_queues, work->inflight_num, is_packed(work)};

	if (dev->op.inflight_fd < 0 || !(work->flags & LV_RF_INFLIGHT) || !any_runs(work))
		return;
	lv_inflight_use(dev, dev->op.inflight_fd, &shape, work->inflight_bytes, work->inflight_offset);
	dev->op.inflight_fd = -1;
}

static bool write_at(const struct libvhost_dev *dev, uint64_t at, const void *buf, size_t len)
{
	return pwrite(dev->inflight.fd, buf, len, (off_t)at) == (ssize_t)len;
}

/* As back-ends hand a region out. DPDK links the free list of a packed queue only then, so that a region of zeros would
 * not do. */
static bool empty_queue(const struct libvhost_dev *dev, uint32_t queue)
{
	const bool packed = is_packed(dev->rec);
	const struct lv_inflight_packed head = {.used_wrap_counter = 1, .old_used_wrap_counter = 1};
	struct lv_inflight_packed_desc chunk[CHUNK / sizeof(struct lv_inflight_packed_desc)] = {0};
	const uint64_t at = queue_at(dev->rec, queue),
		       end = at + lv_inflight_queue_bytes(dev->rec->inflight_num, packed);
	uint64_t to = packed ? at + sizeof(head) : at;
	uint16_t next = 1;
	bool ok = !packed || write_at(dev, at, &head, sizeof(head));

	while (ok && to < end) {
		const size_t n = end - to < sizeof(chunk) ? end - to : sizeof(chunk);

		for (size_t i = 0; packed && i < sizeof(chunk) / sizeof(chunk[0]); i++)
			chunk[i].next = next++;
		ok = write_at(dev, to, chunk, n);
		to += n;
	}
	return ok;
}

void lv_inflight_forget_queue(struct libvhost_dev *dev, uint32_t queue)
{
	if (dev->rec->flags & LV_RF_INFLIGHT && queue < dev->rec->inflight_queues)
		(void)empty_queue(dev, queue); /* fails only with a file that was cut, in which nothing is in flight */
}

/* ---- the caller's ---- */

static int no_region(struct libvhost_dev *dev, const char *call)
{
	return lv_fail(&dev->err, -ENOENT, LIBVHOST_EK_STATE, "%s: the device has no inflight region", call);
}

static int not_negotiated(struct libvhost_dev *dev, const char *call)
{
	return lv_fail(&dev->err, -ENOTSUP, LIBVHOST_EK_NOT_NEGOTIATED,
		       "%s: INFLIGHT_SHMFD (protocol bit 12) is not in use: the peer does not offer it, or the device "
		       "was made without LIBVHOST_DEV_INFLIGHT",
		       call);
}

/* A peer that died under running rings gets their region back. */
static int still_needed(struct libvhost_dev *dev, const char *call)
{
	return lv_fail(&dev->err, -EBUSY, LIBVHOST_EK_STATE,
		       "%s: the rings come back with reconnect and need the region; force_stop them first", call);
}

int lv_inflight_claim(struct libvhost_dev *dev, enum lv_inflight_need need, const char *call)
{
	const uint32_t states = LV_STATE(NEGOTIATED) | (need == LV_INFLIGHT_NEGOTIATE ? 0 : LV_STATE(DISCONNECTED));
	int r = lv_dev_claim(dev, LV_OP_REQUEST, states, call);

	if (r)
		return r;
	if (need == LV_INFLIGHT_NEGOTIATE || need == LV_INFLIGHT_REPLACE)
		r = dev->rec->protocol_acked & LV_BIT(LIBVHOST_PROTOCOL_F_INFLIGHT_SHMFD) ? 0
											  : not_negotiated(dev, call);
	else if (!(dev->rec->flags & LV_RF_INFLIGHT))
		r = no_region(dev, call);
	if (!r && need != LV_INFLIGHT_READ && dev->state == LIBVHOST_DEV_DISCONNECTED && lv_dev_was_running(dev))
		r = still_needed(dev, call);
	return r ? lv_dev_release(dev, r) : 0;
}

static int prepare_ended(struct libvhost_dev *dev, int r)
{
	dev->op.result = r;
	if (!r)
		lv_dev_adopt(dev);
	else if (lv_part_gone(&dev->parts[0]))
		lv_dev_disconnected(dev, r);
	return 0;
}

int libvhost_dev_prepare_inflight(struct libvhost_dev *dev, uint32_t timeout_ms)
{
	int r;

	if (!dev || timeout_ms > LV_TIMEOUT_MAX_MS)
		return -EINVAL;
	r = lv_inflight_claim(dev, LV_INFLIGHT_NEGOTIATE, "prepare_inflight");
	if (r)
		return r;
	if (dev->rec->flags & LV_RF_INFLIGHT)
		return lv_dev_release(dev, 0);
	if (!lv_inflight_shape(dev->rec).queues)
		return lv_dev_release(
			dev, lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_STATE, "prepare_inflight: no queue is set up"));
	r = lv_features_check(dev, dev->rec->acked, "prepare_inflight");
	if (r)
		return lv_dev_release(dev, r);
	lv_op_prepare(dev);
	lv_op_begin(dev, false, lv_deadline(dev->ctx, timeout_ms), prepare_ended);
	lv_op_plan(dev, LV_PLAN_INFLIGHT);
	return lv_dev_release(dev, lv_op_finish(dev));
}

/* Lock held. */
static int map_region(struct libvhost_dev *dev)
{
	struct lv_inflight_file *own = &dev->inflight;
	const uint64_t page = lv_fd_page(own->fd), skip = dev->rec->inflight_offset % page;
	const size_t len = (size_t)((dev->rec->inflight_bytes + skip + page - 1) & ~(page - 1));
	void *map;

	if (own->map)
		return 0;
	map = mmap(NULL, len, PROT_READ, MAP_SHARED, own->fd, (off_t)(dev->rec->inflight_offset - skip));
	if (map == MAP_FAILED)
		return lv_fail_sys(&dev->err, errno, "get_inflight: the region cannot be mapped: %s",
				   lv_errno_name(errno));
	if (lv_ctx_guards(dev->ctx) && !(own->guarded = lv_sigbus_guard(map, len, (size_t)page))) {
		munmap(map, len);
		return lv_fail_sys(&dev->err, ENOMEM, "get_inflight: no memory to guard the region");
	}
	own->map = map;
	own->map_len = len;
	own->region = (uint8_t *)map + skip;
	return 0;
}

int libvhost_dev_get_inflight(struct libvhost_dev *dev, struct libvhost_inflight *inflight)
{
	struct libvhost_inflight o = {.size = sizeof(o)};
	const struct lv_record *rec;
	int r;

	if (!dev || !inflight)
		return -EINVAL;
	pthread_mutex_lock(&dev->lock);
	rec = dev->rec;
	r = rec->flags & LV_RF_INFLIGHT ? map_region(dev) : no_region(dev, "get_inflight");
	if (!r) {
		o.fd = dev->inflight.fd;
		o.mmap_size = rec->inflight_bytes;
		o.mmap_offset = rec->inflight_offset;
		o.num_queues = rec->inflight_queues;
		o.queue_size = rec->inflight_num;
		o.address = (uintptr_t)dev->inflight.region;
	}
	pthread_mutex_unlock(&dev->lock);
	return r ? r : LV_OUT_WRITE(inflight, &o);
}

void lv_inflight_use(struct libvhost_dev *dev, int fd, const struct lv_inflight_shape *shape, uint64_t bytes,
		     uint64_t offset)
{
	pthread_mutex_lock(&dev->lock);
	replace_fd(dev, fd);
	lv_inflight_note(dev->rec, shape, bytes, offset);
	pthread_mutex_unlock(&dev->lock);
}

/* NULL, or what is wrong with a region that the caller describes. */
static const char *check_given(const struct libvhost_dev *dev, const struct libvhost_inflight *o, uint64_t file)
{
	const struct lv_inflight_shape need = lv_inflight_shape(dev->rec),
				       made = {o->num_queues, o->queue_size, need.packed};

	if (!o->num_queues || o->num_queues > LIBVHOST_MAX_QUEUES || !o->queue_size ||
	    o->queue_size > LV_INFLIGHT_MAX_NUM)
		return "num_queues must be 1..256 and queue_size 1..32768";
	if (need.queues > o->num_queues || need.num > o->queue_size)
		return "it was made for fewer or smaller queues than are set up";
	if (o->mmap_size < lv_inflight_bytes(&made) || o->mmap_size > LV_INFLIGHT_MAX_BYTES)
		return "its size is not that of a region for so many entries";
	if (o->mmap_offset > file || o->mmap_size > file - o->mmap_offset)
		return "the file is shorter than it says";
	return NULL;
}

static int set_inflight(struct libvhost_dev *dev, const struct libvhost_inflight *o)
{
	struct lv_inflight_shape shape = lv_inflight_shape(dev->rec);
	const char *wrong;
	uint64_t file = 0;
	int r = lv_inflight_check_fd(o->fd, &file), fd;

	if (r)
		return lv_fail(&dev->err, r, LIBVHOST_EK_ARGUMENT,
			       "set_inflight: descriptor %d is not " LV_INFLIGHT_FILE, o->fd);
	wrong = check_given(dev, o, file);
	if (wrong)
		return lv_fail(&dev->err, -EINVAL, LIBVHOST_EK_ARGUMENT,
			       "set_inflight: %llu bytes at %llu for %u queues of %u entries: %s",
			       (unsigned long long)o->mmap_size, (unsigned long long)o->mmap_offset, o->num_queues,
			       o->queue_size, wrong);
	fd = lv_fd_dup(o->fd);
	if (fd < 0)
		return lv_fail_sys(&dev->err, -fd, "set_inflight: no descriptor left: %s", lv_errno_name(-fd));
	shape.queues = o->num_queues;
	shape.num = o->queue_size;
	lv_inflight_use(dev, fd, &shape, o->mmap_size, o->mmap_offset);
	return 0;
}

int libvhost_dev_set_inflight(struct libvhost_dev *dev, const struct libvhost_inflight *inflight)
{
	struct libvhost_inflight o;
	int r;

	if (!dev || !inflight)
		return -EINVAL;
	r = LV_OPTS_READ(&dev->err, &o, inflight);
	if (!r)
		r = lv_inflight_claim(dev, LV_INFLIGHT_REPLACE, "set_inflight");
	return r ? r : lv_dev_release(dev, set_inflight(dev, &o));
}

int libvhost_dev_reset_inflight(struct libvhost_dev *dev)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = lv_inflight_claim(dev, LV_INFLIGHT_CHANGE, "reset_inflight");
	if (r)
		return r;
	for (uint32_t q = 0; q < dev->rec->inflight_queues && !r; q++)
		if (!empty_queue(dev, q))
			r = lv_inflight_unreadable(dev, "reset_inflight");
	return lv_dev_release(dev, r);
}

int libvhost_dev_free_inflight(struct libvhost_dev *dev)
{
	int r;

	if (!dev)
		return -EINVAL;
	r = lv_inflight_claim(dev, LV_INFLIGHT_CHANGE, "free_inflight");
	if (r)
		return r;
	lv_inflight_drop(dev);
	return lv_dev_release(dev, 0);
}
