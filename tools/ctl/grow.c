/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umbractl grow: a mounted file system takes in what its device or file has gained.
 */
#include "ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const char usage[] =
	"usage: umbractl grow [--size SIZE] [--json] PATH\n"
	"The umbrafs that PATH is on takes in all of its device, or of the plain file it is in.\n"
	"\n"
	"  -s, --size SIZE   makes the plain file so large before (10G, 1T ...)\n"
	"Exit status: 0 done, 1 failed (the file system is as it was), 2 usage.\n";

static int take(void *arg, int letter, const char *value)
{
	uint64_t *size = arg;

	(void)letter;
	if (args_size(value, size) && *size != 0 && *size % 4096 == 0)
		return 0;
	fprintf(stderr, "umbractl grow: --size %s: not a size (a multiple of 4096 bytes)\n", value);
	return STATUS_USAGE;
}

static int failed(const char *path, int error, bool sized)
{
	switch (error) {
	case EALREADY:
		return ctl_say(path, sized ? "no more fits into a file of that size" :
					     "its device or file has not grown, or by too little");
	case EBUSY:
		return ctl_say(path, "it is being grown already");
	case EINVAL:
		return ctl_say(
			path,
			sized ? "that is less than the file has, or it is on a device (leave --size out)" :
				"its device or file is smaller than it was");
	case EOVERFLOW:
		return ctl_say(path, "too much for this mount: unmount it and mount it again, then grow it");
	default:
		return ctl_fail(path, error);
	}
}

int ctl_grow(int argc, char **argv)
{
	static const struct option longs[] = { { "size", required_argument, NULL, 's' },
					       { NULL, 0, NULL, 0 } };
	struct umbra_grow arg = { 0 };
	uint64_t size = 0;
	struct ctl_args args = {
		.usage = usage, .letters = "s:", .longs = longs, .take = take, .arg = &size, .min = 1, .max = 1
	};
	char before[ARGS_SIZE_TEXT], after[ARGS_SIZE_TEXT];
	int rc = ctl_parse(&args, argc, argv), fd;

	if (rc)
		return rc < 0 ? 0 : rc;
	fd = ctl_open(args.names[0], O_RDONLY);
	if (fd < 0)
		return STATUS_FAILED;
	arg.size = size;
	rc = ioctl(fd, UMBRA_IOC_GROW, &arg) ? errno : 0;
	close(fd);
	if (rc)
		return failed(args.names[0], rc, size != 0);
	if (args.json) {
		struct json_object *o = json_object_new_object();

		json_object_object_add(o, "old_size_bytes", json_u64(arg.old_size));
		json_object_object_add(o, "size_bytes", json_u64(arg.size));
		return ctl_print_json(o);
	}
	printf("%s: %s, was %s\n", args.names[0], args_size_text(arg.size, after, sizeof(after)),
	       args_size_text(arg.old_size, before, sizeof(before)));
	return ctl_finish();
}
