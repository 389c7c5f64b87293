/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/*
 * Runs on the worker: nothing is allocated, opened or printed here. Every field of a request is copied once into
 * private memory before it is looked at, because the guest may change it meanwhile.
 */
#include "blk_device.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define SECTOR	  512u
#define PIECES	  256u
#define PER_ROUND 64u

_Static_assert(sizeof(struct libvhost_iov) == sizeof(struct iovec) &&
		       offsetof(struct libvhost_iov, len) == offsetof(struct iovec, iov_len),
	       "pieces are passed to preadv as they are");

/* Moves len bytes between a flat buffer and the front of the pieces, and takes them off. Returns what was moved. */
static size_t take(struct iovec **iov, uint32_t *n, void *flat, size_t len, bool to_pieces)
{
	size_t moved = 0, step;

	while (*n && moved < len) {
		step = (*iov)->iov_len < len - moved ? (*iov)->iov_len : len - moved;
		if (to_pieces)
			memcpy((*iov)->iov_base, (char *)flat + moved, step);
		else
			memcpy((char *)flat + moved, (*iov)->iov_base, step);
		(*iov)->iov_base = (char *)(*iov)->iov_base + step;
		(*iov)->iov_len -= step;
		moved += step;
		if (!(*iov)->iov_len) {
			(*iov)++;
			(*n)--;
		}
	}
	return moved;
}

static uint8_t transfer_file(const struct blk_device *dev, struct iovec *iov, uint32_t n, uint64_t len, uint64_t at,
			     bool write)
{
	ssize_t rc;

	while (len) {
		rc = write ? pwritev(dev->fd, iov, (int)n, (off_t)at) : preadv(dev->fd, iov, (int)n, (off_t)at);
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc <= 0)
			return BLK_S_IOERR;
		len -= (uint64_t)rc;
		at += (uint64_t)rc;
		for (size_t left = (size_t)rc; left;) {
			size_t step = iov->iov_len < left ? iov->iov_len : left;

			iov->iov_base = (char *)iov->iov_base + step;
			iov->iov_len -= step;
			left -= step;
			if (!iov->iov_len) {
				iov++;
				n--;
			}
		}
	}
	return BLK_S_OK;
}

static uint8_t transfer(const struct blk_device *dev, struct iovec *iov, uint32_t n, uint64_t len, uint64_t sector,
			bool write)
{
	if (len % SECTOR || sector > dev->size / SECTOR || len > dev->size - sector * SECTOR)
		return BLK_S_IOERR;
	if (dev->journal && len)
		dev->journal[sector]++; /* before it touches data */
	if (!dev->ram)
		return transfer_file(dev, iov, n, len, sector * SECTOR, write);
	take(&iov, &n, dev->ram + sector * SECTOR, len, !write);
	return BLK_S_OK;
}

/* The status byte is the last writable one; what lies before it is data. Returns bytes written for the used ring. */
static uint64_t execute(const struct blk_device *dev, struct libvhost_chain *chain)
{
	struct iovec *out = (struct iovec *)chain->iov, *in = out + chain->n_read, *last = in + chain->n_write - 1;
	uint32_t n_out = chain->n_read, n_in = chain->n_write;
	struct blk_header header;
	uint8_t *status, result;
	uint64_t data = 0;

	if (!chain->write_len)
		return 0;	       /* nowhere to answer */
	for (; !last->iov_len; last--) /* write_len > 0, so there is one that is not empty */
		n_in--;
	status = (uint8_t *)last->iov_base + last->iov_len - 1;
	if (!--last->iov_len)
		n_in--;
	if (take(&out, &n_out, &header, sizeof(header), false) < sizeof(header)) {
		*status = BLK_S_IOERR;
		return 1;
	}
	switch (le32toh(header.type)) {
	case BLK_T_IN:
		data = chain->write_len - 1;
		result = transfer(dev, in, n_in, data, le64toh(header.sector), false);
		break;
	case BLK_T_OUT:
		result = transfer(dev, out, n_out, chain->read_len - sizeof(header), le64toh(header.sector), true);
		break;
	case BLK_T_FLUSH:
		result = dev->ram || !fdatasync(dev->fd) ? BLK_S_OK : BLK_S_IOERR;
		break;
	case BLK_T_GET_ID:
		data = take(&in, &n_in, (char *)dev->id, sizeof(dev->id), true);
		result = BLK_S_OK;
		break;
	default:
		result = BLK_S_UNSUPP;
	}
	*status = result;
	return (result == BLK_S_OK ? data : 0) + 1;
}

int blk_device_serve(void *arg, uint32_t queue, struct libvhost_vq *vq)
{
	struct libvhost_iov iov[PIECES];
	struct libvhost_chain chain;
	uint64_t written;
	int rc = 0;

	(void)queue;
	for (uint32_t i = 0; i < PER_ROUND; i++) {
		chain = (struct libvhost_chain){.size = sizeof(chain), .iov = iov, .iov_cap = PIECES};
		rc = libvhost_vq_pop(vq, &chain);
		if (rc <= 0)
			return rc;
		written = execute(arg, &chain);
		/* the status lies at the end, and a read that failed may have begun */
		rc = libvhost_vq_wrote(vq, chain.head, written, chain.write_len - written);
		if (rc == 0)
			rc = libvhost_vq_push(vq, chain.head, written);
		if (rc < 0)
			return rc;
	}
	return 1;
}
