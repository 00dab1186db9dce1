/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device's list of bad memory as the kernel writes it, in a tree of files that looks as sysfs does.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include <cmocka.h>

#include "daemon/badblocks.h"
#include "dax/badblocks.h"
#include "lib/testfs.h"

static struct testfs t;

static int range_none(void *arg, uint64_t off, uint64_t len_bytes)
{
	(void)arg, (void)off, (void)len_bytes;
	return 0;
}

/* A plain file has no list, and nothing runs. */
static void test_none(void **state)
{
	struct badblocks *bb = (void *)&bb;

	(void)state;
	testfs_make(&t, NULL);
	assert_int_equal(dax_badblocks_open(t.dax), -ENOENT);
	assert_false(dax_badblocks_known(t.dax));
	assert_false(dax_badblocks_can_clear(t.dax));
	assert_int_equal(dax_badblocks_list(t.dax, range_none, NULL), -ENOENT);
	assert_int_equal(dax_badblocks_clear(t.dax, 0, BLOCK_SIZE), -EOPNOTSUPP);
	assert_int_equal(dax_badblocks_fd(t.dax), -1);
	assert_int_equal(badblocks_start(t.fs, BADBLOCKS_LOOK_MS, &bb), 0);
	assert_null(bb);
	badblocks_stop(bb);
	testfs_free(&t);
}

static char root[] = "/tmp/umbra-badblocks-XXXXXX";
#define REGION "devices/acpi/ndbus0/region4000001"
#define DEVICE REGION "/dax1.1/dax1.0"
#define DEVICE_NUMBER makedev(250, 7)

static void command(const char *fmt, ...)
{
	char text[1024];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	assert_int_equal(system(text), 0);
}

struct expected {
	const struct dax_bad *ranges;
	unsigned count, seen;
};

static int range_expect(void *arg, uint64_t off, uint64_t len_bytes)
{
	struct expected *e = arg;

	assert_true(e->seen < e->count);
	assert_int_equal(off, e->ranges[e->seen].off);
	assert_int_equal(len_bytes, e->ranges[e->seen++].len);
	return 0;
}

static void list_expect(struct dax *dax, const char *text, const struct dax_bad *ranges, unsigned count)
{
	struct expected e = { ranges, count, 0 };

	command("printf '%s' >%s/" REGION "/badblocks", text, root);
	assert_int_equal(dax_badblocks_list(dax, range_expect, &e), 0);
	assert_int_equal(e.seen, count);
}

static struct dax *sysfs_begin(void)
{
	struct dax *dax;

	strcpy(strrchr(root, '-') + 1, "XXXXXX");
	assert_non_null(mkdtemp(root));
	command("cd %s && mkdir -p dev/char " DEVICE " && ln -s ../../" DEVICE " dev/char/250:7", root);
	command("cd %s && echo 0x240000000 >" REGION "/resource && echo 0x240200000 >" DEVICE
		"/resource && : >" REGION "/badblocks",
		root);
	assert_int_equal(dax_open_ram(1 << 20, NULL, NULL, &dax), 0);
	return dax;
}

static void sysfs_end(struct dax *dax)
{
	dax_close(dax);
	command("rm -r %s", root);
}

static int range_stop(void *arg, uint64_t off, uint64_t len_bytes)
{
	unsigned *count = arg;

	(void)off, (void)len_bytes;
	return ++*count == 2 ? -ECANCELED : 0;
}

static void test_sysfs(void **state)
{
	struct dax *dax = sysfs_begin();
	unsigned count = 0;

	(void)state;
	assert_int_equal(dax_badblocks_open_at(dax, root, DEVICE_NUMBER), 0);
	assert_true(dax_badblocks_known(dax) && dax_badblocks_can_clear(dax) && dax_badblocks_fd(dax) >= 0);
	assert_int_equal(dax_badblocks_open(dax), 0);
	list_expect(dax, "", NULL, 0);
	/* The namespace's own 2 MiB are 4096 sectors. */
	list_expect(dax, "4096 1\\n5000 16\\n", (struct dax_bad[]){ { 0, 512 }, { 904 * 512, 8192 } }, 2);
	list_expect(dax, "0 1\\n4095 1\\n4095 3\\n", (struct dax_bad[]){ { 0, 1024 } }, 1);
	list_expect(dax, "4096 0\\n4097 1\\n", (struct dax_bad[]){ { 512, 512 } }, 1);
	/* A page of text, cut. */
	list_expect(dax, "4100 1\\n41", (struct dax_bad[]){ { 2048, 512 } }, 1);
	list_expect(dax, "4100 1\\n4101 1", (struct dax_bad[]){ { 2048, 512 } }, 1);
	list_expect(dax, "x\\n\\n4096\\n4097 1 2\\n4098 1\\n", (struct dax_bad[]){ { 1024, 512 } }, 1);
	list_expect(dax, "18446744073709551615 1\\n36028797018968064 1\\n4099 1\\n",
		    (struct dax_bad[]){ { 1536, 512 } }, 1);
	command("seq -f '%%g 1' 4096 7095 >%s/" REGION "/badblocks", root);
	assert_int_equal(dax_badblocks_list(dax, range_stop, &count), -ECANCELED);
	assert_int_equal(count, 2);
	/* No bus has such a region; the library has been asked. */
	assert_int_equal(dax_badblocks_clear(dax, 0, 4096), -EOPNOTSUPP);
	assert_int_equal(dax_badblocks_clear(dax, 0, 4096), -EOPNOTSUPP);
	sysfs_end(dax);
}

static void test_sysfs_none(void **state)
{
	struct dax *dax = sysfs_begin();

	(void)state;
	assert_int_equal(dax_badblocks_open_at(dax, root, makedev(250, 8)), -ENOENT);
	command("mkdir %s/" DEVICE "/mapping1", root);
	assert_int_equal(dax_badblocks_open_at(dax, root, DEVICE_NUMBER), -ENOENT);
	command("rmdir %s/" DEVICE "/mapping1 && rm %s/" REGION "/badblocks", root, root);
	assert_int_equal(dax_badblocks_open_at(dax, root, DEVICE_NUMBER), -ENOENT);
	command("echo 0x240300000 >%s/" REGION "/resource", root);
	assert_int_equal(dax_badblocks_open_at(dax, root, DEVICE_NUMBER), -EIO);
	command("echo none >%s/" REGION "/resource", root);
	assert_int_equal(dax_badblocks_open_at(dax, root, DEVICE_NUMBER), -EIO);
	command("rm %s/" DEVICE "/resource", root);
	assert_int_equal(dax_badblocks_open_at(dax, root, DEVICE_NUMBER), -ENOENT);
	/* Memory that is no persistent memory has no region of that kind. */
	command("cd %s && mkdir -p devices/platform/region7x/dax0.0 && cd devices/platform/region7x && : >badblocks && "
		"echo 0x1000 | tee resource >dax0.0/resource && ln -s ../../devices/platform/region7x/dax0.0 ../../../dev/char/250:9",
		root);
	assert_int_equal(dax_badblocks_open_at(dax, root, makedev(250, 9)), -ENOENT);
	assert_false(dax_badblocks_known(dax));
	sysfs_end(dax);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_sysfs),
		cmocka_unit_test(test_sysfs_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
