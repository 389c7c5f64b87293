/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
#include "blk_load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "pattern.h"

int blk_load_done(void *arg, const struct blk_slot *slot, uint8_t *data, uint8_t status)
{
	struct blk_load *l = arg;
	struct blk_phase *p = l->phase;
	size_t bad;

	if (status != BLK_S_OK)
		return complain("%s of %u bytes at byte %" PRIu64 " failed with status %u", p->name, slot->bytes,
				slot->sector * SECTOR, status);
	if (slot->type == BLK_T_IN && l->verify) {
		if (!pattern_check(data, slot->bytes, slot->sector, l->seed, &bad))
			return complain("wrong data at byte %" PRIu64, slot->sector * SECTOR + bad);
		l->verified += slot->bytes;
	}
	p->requests++;
	p->bytes += slot->bytes;
	histogram_add(&p->latency, seconds_now() - slot->started);
	return 0;
}

int blk_load_feed(struct blk_load *l)
{
	struct blk_phase *p = l->phase;
	uint64_t left;
	uint32_t slot, bytes;
	uint8_t *data;

	for (uint32_t q = 0; q < l->driver.opts.queues; q++) {
		while (p->next < p->end && (data = blk_driver_slot(&l->driver, q, &slot))) {
			left = p->end - p->next;
			bytes = p->type == BLK_T_FLUSH ? 0 : l->driver.opts.block_bytes;
			if (bytes > left)
				bytes = (uint32_t)left;
			if (p->type == BLK_T_OUT)
				pattern_fill(data, bytes, p->next / SECTOR, l->seed);
			else
				memset(data, 0xa5, bytes);
			if (blk_driver_submit(&l->driver, q, slot, p->type,
					      p->type == BLK_T_FLUSH ? 0 : p->next / SECTOR, bytes))
				return 1;
			p->next += bytes ? bytes : left;
			if (p->next == p->end && p->until > seconds_now())
				p->next = 0;
		}
	}
	return 0;
}

static void show_progress(const struct blk_load *l, double started)
{
	static const char bar[] = "##############################";
	const struct blk_phase *p = l->phase;
	double part = p->until > 0 ? (seconds_now() - started) / l->duration_s : (double)p->bytes / (double)p->end;
	int width = part > 1 ? 30 : (int)(30 * part);

	fprintf(stderr, "\r%-6s [%-30.*s] %3d%%  %8.1f MiB/s", p->name, width, bar, width * 100 / 30,
		(double)p->bytes / 1048576 / (seconds_now() - started + 1e-9));
}

int blk_load_run(struct blk_load *l, struct blk_phase *p)
{
	bool show = l->show_progress && isatty(STDERR_FILENO);
	double started = seconds_now(), shown = started;

	l->phase = p;
	if (l->duration_s > 0 && p->type != BLK_T_FLUSH)
		p->until = started + l->duration_s;
	do {
		if (blk_load_feed(l) || blk_driver_run(&l->driver, blk_load_done, l))
			return 1;
		if (show && seconds_now() - shown > 0.1) {
			shown = seconds_now();
			show_progress(l, started);
		}
	} while (l->driver.in_flight || p->next < p->end);
	p->seconds = seconds_now() - started;
	if (show) {
		show_progress(l, started);
		fputc('\n', stderr);
	}
	return 0;
}
