/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * A block device in memory, over a file or over nothing, as its worker serves it. Sandbox row: block. With a file a
 * request is started, and answered when the disk has; else at once.
 */
#include "devices/blk.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "devices/pieces.h"

#define PER_TURN 64u
#define PENDING	 0xffu /* no status yet: the disk is to be asked */

static int finish(struct blk_request *r, struct libvhost_vq *vq, int status)
{
	const uint64_t written = r->room ? (status == BLK_S_OK ? r->data : 0) + 1 : 0;
	int rc;

	*r->status = (uint8_t)status;
	/* the status lies at the end, and a read that failed may have begun */
	rc = libvhost_vq_wrote(vq, r->head, written, r->room - written);
	if (rc == 0)
		rc = libvhost_vq_push(vq, r->head, written);
	r->next = r->queue->free;
	r->queue->free = r;
	return rc;
}

static void disk_is_done(struct libvhost_io *io)
{
	finish((struct blk_request *)io, io->vq,
	       !io->result		   ? BLK_S_OK
	       : io->result == -EOPNOTSUPP ? BLK_S_UNSUPP
					   : BLK_S_IOERR);
}

static bool lies_on_disk(const struct blk *b, uint64_t sector, uint64_t len)
{
	return len % BLK_SECTOR == 0 && sector <= b->size / BLK_SECTOR && len <= b->size - sector * BLK_SECTOR;
}

static int plan_transfer(struct blk *b, struct libvhost_io *io, uint32_t op, const struct pieces *p, uint64_t len,
			 uint64_t sector)
{
	*io = (struct libvhost_io){.op = op, .offset = sector * BLK_SECTOR, .len = len, .iov = p->iov, .num_iov = p->n};
	if (!lies_on_disk(b, sector, len) || (op == LIBVHOST_IO_WRITE && b->read_only))
		return BLK_S_IOERR;
	io->file = b->device.num_files > 1 && !pieces_aligned(p, b->align);
	return len ? PENDING : BLK_S_OK;
}

/* Discard and write zeroes: one range. */
static int plan_range(struct blk *b, struct libvhost_io *io, struct pieces *p, bool zeroes)
{
	struct blk_range range;
	uint64_t len;

	if (pieces_copy(p, &range, sizeof(range), false) < sizeof(range) || p->n || b->read_only)
		return BLK_S_IOERR;
	if (le32toh(range.flags) & ~(zeroes ? BLK_RANGE_UNMAP : 0u))
		return BLK_S_UNSUPP;
	len = (uint64_t)le32toh(range.num_sectors) * BLK_SECTOR;
	*io = (struct libvhost_io){.op = zeroes ? LIBVHOST_IO_WRITE_ZEROES : LIBVHOST_IO_DISCARD,
				   .offset = le64toh(range.sector) * BLK_SECTOR,
				   .len = len};
	if (!len || len > (zeroes ? BLK_ZEROES_MAX : BLK_DISCARD_MAX) * (uint64_t)BLK_SECTOR)
		return BLK_S_IOERR;
	return lies_on_disk(b, le64toh(range.sector), len) ? PENDING : BLK_S_IOERR;
}

/* Every field is copied once into private memory before it is looked at: the guest may change it meanwhile. */
static int plan(struct blk *b, struct blk_request *r, struct libvhost_chain *c)
{
	struct pieces out = {c->iov, c->n_read}, in = {c->iov + c->n_read, c->n_write};
	struct libvhost_iov *last = in.iov + in.n - 1;
	struct blk_header h;

	r->status = &r->nowhere;
	r->room = c->write_len;
	r->data = 0;
	if (!c->write_len)
		return BLK_S_IOERR;
	for (; !last->len; last--) /* write_len > 0, so there is one that is not empty */
		in.n--;
	r->status = (uint8_t *)last->base + --last->len; /* the last byte; what lies before it is data */
	in.n -= !last->len;
	if (pieces_copy(&out, &h, sizeof(h), false) < sizeof(h))
		return BLK_S_IOERR;
	switch (le32toh(h.type)) {
	case BLK_T_IN:
		r->data = c->write_len - 1;
		return plan_transfer(b, &r->io, LIBVHOST_IO_READ, &in, r->data, le64toh(h.sector));
	case BLK_T_OUT:
		return plan_transfer(b, &r->io, LIBVHOST_IO_WRITE, &out, c->read_len - sizeof(h), le64toh(h.sector));
	case BLK_T_FLUSH:
		r->io = (struct libvhost_io){.op = LIBVHOST_IO_FLUSH};
		return PENDING;
	case BLK_T_GET_ID:
		r->data = pieces_copy(&in, b->id, sizeof(b->id), true);
		return BLK_S_OK;
	case BLK_T_DISCARD:
	case BLK_T_WRITE_ZEROES:
		return plan_range(b, &r->io, &out, le32toh(h.type) == BLK_T_WRITE_ZEROES);
	default:
		return BLK_S_UNSUPP;
	}
}

static int execute(struct blk *b, struct libvhost_io *io, struct libvhost_vq *vq)
{
	if (b->journal && io->op <= LIBVHOST_IO_WRITE)
		b->journal[io->offset / BLK_SECTOR]++; /* before it touches data */
	io->done = disk_is_done;
	if (b->device.num_files)
		return libvhost_vq_io(vq, io) < 0 ? BLK_S_IOERR : PENDING;
	if (b->ram && io->op <= LIBVHOST_IO_WRITE)
		pieces_copy(&(struct pieces){io->iov, io->num_iov}, b->ram + io->offset, io->len,
			    io->op == LIBVHOST_IO_READ);
	else if (b->ram && io->op == LIBVHOST_IO_WRITE_ZEROES) /* what is discarded may stay */
		memset(b->ram + io->offset, 0, io->len);
	return BLK_S_OK;
}

int blk_serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct blk *b = arg;

	for (uint32_t i = 0; i < PER_TURN; i++) {
		struct blk_request *r = b->queues[queue].free;
		struct libvhost_chain c = {.size = sizeof(c), .iov_cap = BLK_PIECES};
		int rc, status;

		if (!r)
			return LIBVHOST_TURN_WAIT; /* until the disk is done with one */
		c.iov = r->iov;
		rc = libvhost_vq_pop(vq, &c);
		if (rc <= 0)
			return rc;
		b->queues[queue].free = r->next;
		r->head = c.head;
		status = plan(b, r, &c);
		if (status == PENDING)
			status = execute(b, &r->io, vq);
		if (status != PENDING && (rc = finish(r, vq, status)) < 0)
			return rc;
	}
	return LIBVHOST_TURN_MORE;
}
