/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* The traps of kernel and vDPA front-ends (see pitfalls.c), whose peer is a table of answers. */
#include "planrig.h"

#include <errno.h>

static struct planrig *vdpa(uint64_t backend)
{
	struct planrig *rig = planrig_new(LIBVHOST_DIALECT_VDPA, 2, 1);

	rig->features[0] = MODERN | LV_BIT(LV_F_ACCESS_PLATFORM);
	rig->backend = backend;
	rig->iova_last = UINT64_MAX;
	planrig_connect(rig);
	planrig_queue(rig, 0, 0);
	return rig;
}

static void status_is_read_back(void)
{
	struct planrig *rig = vdpa(0);

	rig->refuse_status = LV_STATUS_FEATURES_OK;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_REFUSED, "FEATURES_OK");
	CHECK(!planrig_says(rig, "KICK") && !planrig_says(rig, "ENABLE"));
	rig->refuse_status = LV_STATUS_DRIVER_OK;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_REFUSED, "DRIVER_OK");
	CHECK(planrig_in_order(rig, "SET_VRING_ENABLE queue 0 num 1", "SET_STATUS 0xf"));
	CHECK(!(rig->rec->flags & LV_RF_RUNNING));
	planrig_free(rig);
}

static void bases_need_suspend(void)
{
	struct planrig *rig = vdpa(0);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK_EQ(planrig_run(rig, LV_PLAN_STOP), 0);
	CHECK(!planrig_says(rig, "GET_VRING_BASE"));
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	planrig_expect(rig, LIBVHOST_EK_STATE, "queue 0");
	planrig_free(rig);
}

/* Without IOTLB_PERSIST the device may have lost its mappings at the reset, but the kernel refuses to map twice. */
static void a_restart_unmaps_before_it_maps(void)
{
	struct planrig *rig = vdpa(LV_BIT(LV_BF_SUSPEND)),
		       *keeps = vdpa(LV_BIT(LV_BF_SUSPEND) | LV_BIT(LV_BF_IOTLB_PERSIST));
	struct planrig *both[] = {rig, keeps};

	for (int i = 0; i < 2; i++) {
		CHECK_EQ(planrig_run(both[i], LV_PLAN_START), 0);
		CHECK(!planrig_says(both[i], "IOTLB_MSG invalidate"));
		planrig_sent(both[i]);
		CHECK_EQ(planrig_run(both[i], LV_PLAN_STOP), 0);
		both[i]->text[0] = 0;
		CHECK_EQ(planrig_run(both[i], LV_PLAN_START), 0);
	}
	CHECK(planrig_in_order(rig, "IOTLB_MSG invalidate iova 0 size 0x10000000",
			       "IOTLB_MSG update iova 0 size 0x10000000"));
	CHECK(!planrig_says(keeps, "IOTLB_MSG"));
	planrig_free(keeps);
	planrig_free(rig);
}

/* A status bit that does not stick is a refusal, rings are enabled before DRIVER_OK, where a ring stopped is only known
 * of a suspended device, and a reset drops the mappings unless the kernel promised otherwise. On the plan rig: a vDPA
 * peer has no socket. */
TEST(pitfalls, p14_vdpa_status_suspend_and_mappings)
{
	status_is_read_back();
	bases_need_suspend();
	a_restart_unmaps_before_it_maps();
}

/* Host addresses mean nothing to the device behind vDPA. On the plan rig, as 14. */
TEST(pitfalls, p15_vdpa_ring_addresses_are_iovas_within_the_range)
{
	struct planrig *rig = vdpa(0);

	CHECK_EQ(planrig_run(rig, LV_PLAN_START), 0);
	CHECK(planrig_says(rig, "SET_VRING_ADDR queue 0 desc 0x10000 avail 0x11000 used 0x12000"));
	rig->rec->iova_first = 0x11001;
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -ENOTSUP);
	planrig_expect(rig, LIBVHOST_EK_MEMORY, "0x11001");
	planrig_sent(rig);
	rig->rec->backend_acked |= LV_BIT(LV_BF_IOTLB_PERSIST); /* no map to refuse: the ring itself is checked */
	CHECK_EQ(planrig_run(rig, LV_PLAN_START), -EINVAL);
	planrig_expect(rig, LIBVHOST_EK_MEMORY, "queue 0");
	planrig_free(rig);
}

/* A kernel device that is told of an IOMMU expects a translation for every address. On the plan rig: a kernel's vhost
 * has no socket. */
TEST(pitfalls, p18_access_platform_is_masked_except_for_vdpa)
{
	struct planrig *kernel = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 1), *dpa = vdpa(0);

	kernel->features[0] = MODERN | LV_BIT(LV_F_ACCESS_PLATFORM) | LV_BIT(LV_F_NET_HDR);
	planrig_connect(kernel);
	planrig_queue(kernel, 0, 0);
	CHECK_EQ(planrig_run(kernel, LV_PLAN_START), 0);
	CHECK(planrig_says(kernel, "SET_FEATURES 0x100000000\n"));
	dpa->rec->acked[0] = MODERN;
	CHECK_EQ(planrig_run(dpa, LV_PLAN_START), 0);
	CHECK(planrig_says(dpa, "SET_FEATURES 0x300000000\n"));
	planrig_free(kernel);
	planrig_free(dpa);
}

/* A tap must have its offloads and header length before it is attached: only the host knows when that is, so no plan of
 * ours attaches or detaches one; rings are set up and wait. On the plan rig, as 18. */
TEST(pitfalls, p19_the_host_attaches_its_tap_when_it_is_ready)
{
	struct planrig *kernel = planrig_new(LIBVHOST_DIALECT_KERNEL, 1, 2);

	planrig_connect(kernel);
	planrig_queue(kernel, 0, 0);
	planrig_queue(kernel, 1, 0);
	CHECK_EQ(planrig_run(kernel, LV_PLAN_START), 0);
	CHECK_EQ(planrig_run(kernel, LV_PLAN_STOP), 0);
	CHECK_EQ(planrig_run(kernel, LV_PLAN_RESET), 0);
	CHECK(planrig_says(kernel, "SET_VRING_KICK queue 1"));
	CHECK(!planrig_says(kernel, "NET_SET_BACKEND"));
	planrig_free(kernel);
}
