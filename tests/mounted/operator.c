/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Private ioctls that are for root and the user who mounted: nobody else is let in, and what he asked for has not happened. The same
 * arguments do something for root. On another file system each case says so and is left out.
 */
#define _GNU_SOURCE
#include "check.h"
#include "files.h"

#include <sys/ioctl.h>

#include "../../include/umbra/ioctl.h"

#define BLK 4096u

/* Those of one ioctl that are alive in a case. */
static union {
	struct umbra_owners owners;
	struct umbra_losses losses;
	struct umbra_events events;
	struct umbra_scrub scrub;
	struct umbra_grow grow;
	struct umbra_poison poison;
	struct umbra_poison_clear clear;
	struct umbra_repair repair;
	struct umbra_evacuate evacuate;
	struct umbra_info info;
	struct umbra_stats stats;
	struct umbra_damage damage;
} arg;

/* A file of some blocks, open for everything; skips the case elsewhere. */
static int file_here(void)
{
	int fd;

	file_fill("a", 4 * BLK, 7);
	fd = file_open("a", O_RDWR);
	if (ioctl(fd, UMBRA_IOC_INFO, &arg.info))
		check_skip("not an umbrafs");
	return fd;
}

static __u64 place_of(int fd)
{
	static struct umbra_extents e;

	memset(&e, 0, sizeof(e));
	MUST(ioctl(fd, UMBRA_IOC_EXTENTS, &e));
	return e.extents[0].dev_off;
}

/* How many of the blocks from off on are out of use. */
static unsigned bad_at(int fd, __u64 off)
{
	static struct umbra_owners owners;
	unsigned bad = 0;

	memset(&owners, 0, sizeof(owners));
	owners.dev_off = off;
	owners.len = BLK;
	MUST(ioctl(fd, UMBRA_IOC_OWNERS, &owners));
	for (size_t at = 0, i = 0; i < owners.count; i++) {
		const struct umbra_owner *owner = (const void *)(owners.data + at);

		bad += owner->kind == UMBRA_OWNER_BAD;
		at += owner->record_size;
	}
	return bad;
}

static void case_looks(void)
{
	int fd = file_here();

	arg.owners = (struct umbra_owners){ .len = BLK };
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_OWNERS, &arg.owners));
	OK(ioctl(fd, UMBRA_IOC_OWNERS, &arg.owners));
	memset(&arg, 0, sizeof(arg));
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_LOSSES, &arg.losses));
	OK(ioctl(fd, UMBRA_IOC_LOSSES, &arg.losses));
	memset(&arg, 0, sizeof(arg));
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_EVENTS, &arg.events));
	OK(ioctl(fd, UMBRA_IOC_EVENTS, &arg.events));
	close(fd);
}

/* Figures that name nobody. */
static void case_for_everybody(void)
{
	int fd = file_here();

	memset(&arg, 0, sizeof(arg));
	OK_AS(USER_B, ioctl(fd, UMBRA_IOC_INFO, &arg.info));
	OK_AS(USER_B, ioctl(fd, UMBRA_IOC_STATS, &arg.stats));
	OK_AS(USER_B, ioctl(fd, UMBRA_IOC_DAMAGE, &arg.damage));
	arg.scrub = (struct umbra_scrub){ .op = UMBRA_SCRUB_STATUS };
	OK_AS(USER_B, ioctl(fd, UMBRA_IOC_SCRUB, &arg.scrub));
	close(fd);
}

static void case_poison(void)
{
	int fd = file_here();
	__u64 off = place_of(fd);

	arg.poison = (struct umbra_poison){ .op = UMBRA_POISON_ADD, .off = off, .len = BLK };
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_POISON, &arg.poison));
	EQ(0, bad_at(fd, off));
	EQ(off, place_of(fd));
	OK(ioctl(fd, UMBRA_IOC_POISON, &arg.poison));
	EQ(BLK, arg.poison.done);
	EQ(1, bad_at(fd, off));
	for (__u32 op = UMBRA_POISON_CLEAR; op <= UMBRA_POISON_FORGET; op++) {
		arg.clear = (struct umbra_poison_clear){ .op = op, .off = off, .len = BLK };
		ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_POISON_CLEAR, &arg.clear));
		EQ(1, bad_at(fd, off));
	}
	OK(ioctl(fd, UMBRA_IOC_POISON_CLEAR, &arg.clear));
	EQ(UMBRA_POISON_FREED, arg.clear.result[0]);
	EQ(0, bad_at(fd, off));
	close(fd);
}

static void case_evacuate(void)
{
	int fd = file_here();
	__u64 off = place_of(fd), id;

	arg.evacuate = (struct umbra_evacuate){ .op = UMBRA_EVACUATE_START, .off = off, .len = BLK };
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_EVACUATE, &arg.evacuate));
	OK(ioctl(fd, UMBRA_IOC_EVACUATE, &arg.evacuate));
	id = arg.evacuate.id;
	arg.evacuate = (struct umbra_evacuate){ .op = UMBRA_EVACUATE_STEP, .id = id };
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_EVACUATE, &arg.evacuate));
	EQ(off, place_of(fd));
	arg.evacuate.op = UMBRA_EVACUATE_STOP;
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_EVACUATE, &arg.evacuate));
	/* It has not been stopped. */
	arg.evacuate.op = UMBRA_EVACUATE_STEP;
	do
		OK(ioctl(fd, UMBRA_IOC_EVACUATE, &arg.evacuate));
	while (arg.evacuate.state == UMBRA_EVACUATE_RUNS);
	EQ(0, arg.evacuate.error);
	TRUE(off != place_of(fd));
	close(fd);
}

static void case_scrub(void)
{
	static const __u32 ops[] = { UMBRA_SCRUB_START, UMBRA_SCRUB_STOP, UMBRA_SCRUB_RATE };
	int fd = file_here();

	arg.scrub = (struct umbra_scrub){ .op = UMBRA_SCRUB_STATUS };
	OK(ioctl(fd, UMBRA_IOC_SCRUB, &arg.scrub));
	__u64 rate = arg.scrub.rate, started_s = arg.scrub.started_s;
	__u32 state = arg.scrub.state;

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		arg.scrub = (struct umbra_scrub){ .op = ops[i], .rate = rate + 4096 };
		ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_SCRUB, &arg.scrub));
	}
	arg.scrub = (struct umbra_scrub){ .op = UMBRA_SCRUB_STATUS };
	OK(ioctl(fd, UMBRA_IOC_SCRUB, &arg.scrub));
	EQ(rate, arg.scrub.rate);
	EQ(started_s, arg.scrub.started_s);
	EQ(state, arg.scrub.state);
	arg.scrub = (struct umbra_scrub){ .op = UMBRA_SCRUB_RATE, .rate = rate };
	OK(ioctl(fd, UMBRA_IOC_SCRUB, &arg.scrub));
	close(fd);
}

static void case_grow(void)
{
	int fd = file_here();

	memset(&arg, 0, sizeof(arg));
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_GROW, &arg.grow));
	ERR(EALREADY, ioctl(fd, UMBRA_IOC_GROW, &arg.grow));
	close(fd);
}

static void case_repair(void)
{
	int fd = file_here();

	memset(&arg, 0, sizeof(arg));
	MUST(fchown(fd, USER_B, USER_B)); /* whoever owns the file */
	ERR_AS(USER_B, EPERM, ioctl(fd, UMBRA_IOC_REPAIR, &arg.repair));
	ERR(ENODATA, ioctl(fd, UMBRA_IOC_REPAIR, &arg.repair));
	close(fd);
}

static const struct check_case cases[] = {
	{ "looks", case_looks },   { "for_everybody", case_for_everybody },
	{ "poison", case_poison }, { "evacuate", case_evacuate },
	{ "scrub", case_scrub },   { "grow", case_grow },
	{ "repair", case_repair },
};

CHECK_MAIN(cases)
