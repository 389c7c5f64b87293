/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The lives that devices lead between two crashes. */
#include "vring_crash.h"

#ifdef LV_STORES
void scene_offer(struct scene *x)
{
	for (uint32_t i = 0; i < x->plan.n; i++) {
		const uint64_t gpa = AT + BUFFERS + (x->first + i) * 64;
		const struct libvhost_buf bufs[2] = {{.gpa = gpa, .len = 16}, {.gpa = gpa + 32, .len = 8}};

		CHECK_EQ(libvhost_vq_add(x->drv, bufs, 1, 1, x->first + i), 0);
	}
	CHECK(libvhost_vq_kick(x->drv) >= 0);
	for (uint32_t i = 0; i < x->plan.n && x->plan.packed; i++)
		x->ids[i] = lv_meta_id(lv_packed_load(&x->pring, lv_pos_next(x->begun, 2 * i + 1, NUM)));
}

/* Ring areas in one page, the region in the next. A packed ring starts so that it laps after a few descriptors. */
static void lay_out(struct scene *x)
{
	const uint64_t features =
		LV_F_VERSION_1 | (x->plan.event_idx ? LV_F_EVENT_IDX : 0) | (x->plan.packed ? LV_F_RING_PACKED : 0);

	x->begun = x->plan.start;
	x->opts = (struct libvhost_vq_opts){.size = sizeof(x->opts),
					    .flags = x->plan.packed ? LIBVHOST_VQ_HAS_BASE : 0,
					    .num = NUM,
					    .features = features,
					    .base = x->plan.packed ? lv_pos_base(x->plan.start) : x->plan.start,
					    .desc = AT,
					    .avail = AT + 0x400,
					    .used = AT + 0x800};
	x->ring = (struct lv_split_ring){.desc = (void *)x->mem,
					 .avail = (void *)(x->mem + 0x400),
					 .used = (void *)(x->mem + 0x800),
					 .num = NUM};
	x->pring = (struct lv_packed_ring){.desc = (void *)x->mem, .num = NUM};
	x->split = (void *)(x->mem + REGION);
	x->journal = (void *)(x->mem + JOURNAL);
}

int scene_begin(struct scene *x)
{
	struct libvhost_vq_opts o = x->opts;

	libvhost_vq_free(x->dev);
	x->dev = NULL;
	o.role = LIBVHOST_VQ_DEVICE;
	/* what a front-end knows of a dead device: of a packed ring only where it once began */
	o.base = x->plan.packed ? lv_pos_base(x->begun) : lv_ring_idx(&x->ring, x->ring.used);
	CHECK_EQ(libvhost_vq_new(x->g.ctx, x->g.mem, &o, &x->dev), 0);
	return lv_inflight_attach(x->dev, x->mem + REGION, x->plan.packed ? ENTRIES : NUM);
}

bool scene_take(struct scene *x, struct taken *t)
{
	struct libvhost_iov iov[4];
	struct libvhost_chain c = {.size = sizeof(c), .iov = iov, .iov_cap = 4};
	int rc = libvhost_vq_pop(x->dev, &c);

	CHECK(rc >= 0);
	if (!rc)
		return false;
	t->head[t->count] = c.head;
	t->id[t->count] = (uint32_t)((uint8_t *)iov[0].base - (x->mem + BUFFERS)) / 64;
	x->journal->seen[t->id[t->count++]]++;
	return true;
}

static uint32_t rank(const struct scene *x, uint32_t id)
{
	return id < x->first ? 0 : x->plan.order[id - x->first];
}

void scene_complete(struct scene *x, struct taken *t)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < t->count; i++)
		if (rank(x, t->id[i]) < rank(x, t->id[best]))
			best = i;
	x->journal->executed[t->id[best]]++;
	CHECK_EQ(libvhost_vq_push(x->dev, t->head[best], 8), 0);
	t->count--;
	memmove(&t->head[best], &t->head[best + 1], (t->count - best) * sizeof(t->head[0]));
	memmove(&t->id[best], &t->id[best + 1], (t->count - best) * sizeof(t->id[0]));
}

void scene_live(struct scene *x)
{
	struct taken t = {.count = 0};
	uint32_t pushed = 0;

	for (;;) {
		while (t.count < x->plan.depth && scene_take(x, &t))
			;
		if (!t.count)
			break;
		scene_complete(x, &t);
		if (++pushed % x->plan.batch == 0)
			CHECK(libvhost_vq_flush(x->dev) >= 0);
	}
	CHECK(libvhost_vq_flush(x->dev) >= 0);
}

void scene_open(struct scene *x, const struct plan *plan)
{
	struct libvhost_region reg;

	*x = (struct scene){.plan = *plan, .g = guest_new(0)};
	x->mem = mmap(NULL, END, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(x->mem != MAP_FAILED);
	reg = plain_region(AT, END, x->mem);
	put(&x->g, reg);
	lay_out(x);
	CHECK_EQ(libvhost_vq_new(x->g.ctx, x->g.mem, &x->opts, &x->drv), 0);
	stores_init(&x->stores, x->mem, JOURNAL, BUFFERS, COPIES);
	if (plan->warm) {
		struct libvhost_used used[MOST];
		uint32_t n = MOST;

		scene_offer(x);
		CHECK_EQ(scene_begin(x), 0);
		scene_live(x);
		CHECK_EQ(libvhost_vq_get_used(x->drv, used, &n), 0);
		CHECK_EQ(n, plan->n);
		x->first = plan->n;
		if (plan->packed)
			x->begun = lv_pos_next(x->begun, 2 * plan->n, NUM);
	}
	scene_offer(x);
}

void scene_close(struct scene *x)
{
	libvhost_vq_free(x->dev);
	libvhost_vq_free(x->drv);
	guest_free(&x->g);
	stores_free(&x->stores);
	munmap(x->mem, END);
}
#endif
